"""Signals wait for the end of what must not be cut in two."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from asr.system.interrupts import ENDINGS, deferred


@pytest.mark.parametrize("number", ENDINGS)
def test_a_signal_waits_for_the_end_of_the_block(number):
    done, handler = [], signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), deferred() as asked:  # noqa: PT012
        assert not asked()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert asked()
        done.append(True)
    assert done
    assert signal.getsignal(number) is handler


def test_an_error_in_the_block_goes_first():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError), deferred():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_have_no_signals_to_hold_back():
    seen = []

    def work():
        with deferred() as asked:
            seen.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


# Ten thousand signals a second, as many as it takes to break a heap within a second or two.
FLOODED = """
import signal, torch
from asr.system.interrupts import listen
listen()
torch.set_num_threads(1)
net = torch.nn.LSTM(40, 64, 2, bidirectional=True)
features, steps, signals = torch.randn(200, 4, 40), [], []
signal.signal(signal.SIGALRM, lambda *_: signals.append(1))
signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
while len(signals) < 1000 or len(steps) < 100:
    net.zero_grad()
    net(features)[0].square().mean().backward()
    steps.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
signal.setitimer(signal.ITIMER_REAL, 0)
assert all(torch.equal(step, steps[0]) for step in steps)
"""


def test_signals_amid_the_backward_pass_break_nothing():
    child = subprocess.run([sys.executable, "-c", FLOODED], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_what_nohup_starts_outlives_its_terminal():
    code = (
        "import signal; from asr.system.interrupts import deferred, listen; listen()\n"
        "with deferred(): signal.raise_signal(signal.SIGHUP)\n"
        "signal.raise_signal(signal.SIGHUP); print('done')"
    )
    command = ["nohup", sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"done\n"
