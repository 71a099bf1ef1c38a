"""Lotteries that anybody can check: the bytes that are hashed, the tree, the draw, and the proof file.

A broker uses these modules to run a lottery, a client or an auditor to verify one, with no broker at hand.
"""
