"""Sockets and bytes: listeners, the poller, transports, WebSocket, TLS."""
