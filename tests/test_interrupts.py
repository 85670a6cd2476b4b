"""Signals wait for the end of what must not be cut in two."""

import os
import signal
import threading

import pytest

from asr.interrupts import deferred


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
