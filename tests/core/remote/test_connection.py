"""The line itself: one that goes dead is noticed, one that is only quiet is kept."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from fastvla_core.errors import RemoteUnavailableError
from fastvla_core.remote.client import RemotePolicy
from tests.core.remote.toys import Toy, in_background, observation, serve


class Line:
    """Carries bytes between a client and a server until it is cut, as by a pulled cable.

    Nobody is told of the cut: the connections stay open, and nothing comes through any more.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        self._cut.set()

    def close(self) -> None:
        self._listener.close()
        for end in self._sockets:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            self._sockets += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self._cut.is_set():
                    target.sendall(data)
        except OSError:
            return


@pytest.fixture
def toy():
    toy = Toy()
    yield toy
    toy.leave.set()


def test_a_line_that_goes_dead_is_noticed_before_the_deadline_of_the_inference(toy: Toy):
    with serve(toy) as server:
        line = Line(server.address.port)
        remote = RemotePolicy.connect(line.url, timeout_s=120.0)
        remote.infer(observation(1))
        line.cut()
        begin = time.monotonic()
        with pytest.raises(RemoteUnavailableError):
            remote.infer(observation(2))
        assert time.monotonic() - begin < 30
        remote.close()
        line.close()


@pytest.mark.slow
def test_an_inference_that_takes_long_is_waited_for(toy: Toy):
    # The client asks every two seconds whether the line is there; a server takes that for an attack
    # after a few times, unless it is told otherwise.
    with serve(toy) as server:
        remote = RemotePolicy.connect(str(server.address), timeout_s=60.0)
        toy.leave.clear()
        thread, results = in_background(lambda: remote.infer(observation(5)))
        assert toy.entered.acquire(timeout=10)
        thread.join(11.0)
        assert results == []
        toy.leave.set()
        thread.join(20.0)
        assert results[0].stamp_ns == 5
        remote.close()
