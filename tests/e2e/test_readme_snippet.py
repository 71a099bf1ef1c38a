"""README's Python program runs against a broker of README's command, and ends by itself, as often as it is started."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import trio

from tests.support.processes import environment, serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


async def test_the_python_program_of_readme_shows_a_gift_and_ends() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    async with serving() as broker:
        program = program.replace("roomcast://127.0.0.1:7400", broker.url)
        for _ in range(2):
            with trio.fail_after(30):
                done = await trio.run_process(
                    [sys.executable, "-c", program], capture_stdout=True, env=environment(PYTHONIOENCODING="utf-8")
                )
            out = done.stdout.decode()
            assert "PostResult(outcome=<Outcome." in out
            assert "GiftPayload(order_id='order-" in out.splitlines()[-1]
            assert "gift_id='rose', count=3, price_cents=100" in out
