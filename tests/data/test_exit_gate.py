import threading

from vswin.data.exit_gate import ExitGate


def test_close_waits_for_those_inside_and_turns_others_away() -> None:
    gate = ExitGate()
    is_inside, may_leave = threading.Event(), threading.Event()
    log = []

    def work() -> None:
        with gate.passing() as is_open:
            is_inside.set()
            may_leave.wait(10)
            log.append(("worked", is_open))

    def close() -> None:
        gate.close()
        log.append(("closed", None))

    worker, closer = threading.Thread(target=work), threading.Thread(target=close)
    worker.start()
    assert is_inside.wait(10)
    closer.start()
    closer.join(0.1)
    assert closer.is_alive()
    may_leave.set()
    closer.join(10)
    worker.join(10)
    assert log == [("worked", True), ("closed", None)]
    with gate.passing() as is_open:
        assert not is_open


def test_an_error_inside_does_not_block_the_exit() -> None:
    gate = ExitGate()
    try:
        with gate.passing():
            raise ValueError
    except ValueError:
        pass
    gate.close()
