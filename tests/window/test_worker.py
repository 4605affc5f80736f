"""The thread that remembers: an interrupt after a job leaves it at the head of the queue, and does no harm."""

import threading

import pytest

from kamera_agent.window.worker import Job, Worker


def test_an_interrupt_after_a_job_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    worker, job = Worker("worker"), Job(lambda: done.append(1) or 7)  # type: ignore[func-returns-value]

    def interrupted(job: Job) -> None:
        do(job)
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    def ends(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    do = Job.do
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", ends)
        patch.setattr(Job, "do", interrupted)
        worker.submit(job)
        with pytest.raises(KeyboardInterrupt):
            worker.drain()
    worker.drain()
    job.wait()
    assert (done, job.result, worker.num_failed) == ([1], 7, 0)
