"""Everything in one process: `make run` ends here."""

import asyncio
import errno
import fcntl
import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

import uvicorn
from channels.layers import get_channel_layer
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from billing import gateway
from billing.local_stripe.app import LocalStripe
from billing.local_stripe.app import make_app as make_stripe
from billing.local_stripe.store import CorruptState, OtherVersion
from buttcloud import env
from buttcloud.asgi import application
from buttcloud.celery import app as celery_app
from buttcloud.workers import EmbeddedWorkers
from mailer.catcher import make_app as make_mails
from orchestrator import swarm
from orchestrator.stats import Broadcaster
from pubs import live

STAFF = "staff@buttcloud.example"
HOST = "127.0.0.1"


class Command(BaseCommand):
    help = "Runs everything in one process: site, workers, beat, broadcaster, local Stripe and mail catcher."

    def handle(self, *args: Any, **options: Any) -> None:
        settings.VAR.mkdir(parents=True, exist_ok=True)
        try:
            with _only_one(settings.VAR / "up.lock"):
                self._run()
        except KeyboardInterrupt:
            raise CommandError("Stopped before it was up.", returncode=130) from None
        except (CorruptState, gateway.PaymentTrouble) as error:
            raise CommandError(str(error)) from error
        except (OSError, OperationalError, sqlite3.Error) as error:
            if _is_full_disk(error):
                raise CommandError(
                    f"The disk that holds {settings.VAR} is full. Make room there and start again."
                ) from error
            raise

    def _run(self) -> None:
        sockets = [
            _listen(settings.SITE_PORT, "SITE_PORT"),
            _listen(settings.STRIPE_PORT, "STRIPE_PORT"),
            _listen(settings.MAIL_PORT, "MAIL_PORT"),
        ]
        self._check_swarm()
        self.stdout.write("Bringing the database up to date …")
        call_command("migrate", verbosity=0)
        password = make_staff_account()
        asyncio.run(self._serve(sockets, password))

    def _check_swarm(self) -> None:
        try:
            swarm.connect().look()
        except swarm.SwarmError as error:
            raise CommandError(f"{error} `make run` sets an engine up; see README.md, Start.") from error
        if not settings.PUB_IMAGE:
            raise CommandError("There is no pub image yet: start with `make run`, which builds it, or set PUB_IMAGE.")

    async def _serve(self, sockets: list[socket.socket], password: str) -> None:
        if (layer := get_channel_layer()) and hasattr(layer, "bind"):
            layer.bind()
        stripe = self._make_stripe(settings.VAR / "local_stripe.json")
        apps = [application, stripe, make_mails(settings.MAIL_DIR)]
        servers = [make_server(app, lifespan="on" if app is stripe else "off") for app in apps]
        serving = [
            asyncio.create_task(server.serve(sockets=[opened])) for server, opened in zip(servers, sockets, strict=True)
        ]
        while not all(server.started for server in servers):
            _check_running(serving)
            await asyncio.sleep(0.02)
        self.stdout.write("Making the Stripe catalogue …")
        await asyncio.to_thread(gateway.set_up)
        workers = EmbeddedWorkers(celery_app)
        await asyncio.to_thread(workers.start)
        broadcaster = asyncio.create_task(Broadcaster().run())
        await asyncio.to_thread(live.nudge)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._greet(password)
        try:
            while not stop.is_set():
                _check_running([*serving, broadcaster], workers)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 1)
        finally:
            await self._stop(servers, serving, broadcaster, workers)

    def _make_stripe(self, file: Path) -> LocalStripe:
        """The local Stripe. Its money is play money: what another version of it wrote is kept, and it begins anew."""
        address = f"http://localhost:{settings.STRIPE_PORT}"
        try:
            return make_stripe(file, address)
        except OtherVersion as other:
            aside = file.with_name(f"{file.name}.{other.version}")
            file.replace(aside)
            self.stdout.write(
                f"The local Stripe begins anew: {file.name} is of another version, and is {aside} now. Pubs that were "
                "paid there run on, but nothing of their payment can be changed any more."
            )
            return make_stripe(file, address)

    async def _stop(
        self,
        servers: list[uvicorn.Server],
        serving: list[asyncio.Task[None]],
        broadcaster: asyncio.Task[None],
        workers: EmbeddedWorkers,
    ) -> None:
        self.stdout.write("\nStopping. Pubs go on running, and are found again at the next start.")
        broadcaster.cancel()
        await asyncio.to_thread(workers.stop)
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serving, broadcaster, return_exceptions=True)
        self.stdout.write("Stopped.")

    def _greet(self, password: str) -> None:
        self.stdout.write(
            f"\nbuttcloud runs.\n\n"
            f"  site          {settings.SITE_URL}/\n"
            f"  staff         {settings.SITE_URL}/admin/   {STAFF}  password {password}\n"
            f"  mails         http://localhost:{settings.MAIL_PORT}/\n"
            f"  local Stripe  http://localhost:{settings.STRIPE_PORT}/   pay with card 4242 4242 4242 4242\n\n"
            f"`make demo` in another terminal walks through it as a customer. Ctrl-C stops everything but the pubs.\n"
        )
        self.stdout.flush()


class _Server(uvicorn.Server):
    """Signals are the command's: uvicorn would raise them again after serving and end the process too early."""

    def capture_signals(self) -> Any:
        return nullcontext()


def make_server(app: Any, lifespan: Literal["on", "off"] = "off") -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            app,
            lifespan=lifespan,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=3,
            # Nobody stands before us who may say where a visitor comes from.
            proxy_headers=False,
        )
    )


def _check_running(tasks: list[asyncio.Task[None]], workers: EmbeddedWorkers | None = None) -> None:
    """A site whose workers are dead looks well and does nothing: better to end with a word."""
    for task in tasks:
        if task.done():
            raise CommandError(f"A part of the service ended by itself: {task.exception() or task}. Start it again.")
    if workers and (dead := workers.dead()):
        raise CommandError(f"The worker thread {dead} ended by itself; what is printed above says why. Start it again.")


def make_staff_account() -> str:
    """The password of the one staff account, made at the first start."""
    password = env.kept_secret(settings.VAR / "secrets" / "staff_password", env.random_word)
    users = get_user_model().objects
    if not users.filter(email=STAFF).exists():
        users.create_superuser(STAFF, password, name="Staff")
    return password


def _listen(port: int, variable: str) -> socket.socket:
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((HOST, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(
                f"Port {port} is taken by another program: stop that, or start with {variable}={port + 100}."
            ) from error
        raise CommandError(f"Port {port} can't be opened: {error.strerror}. Choose another with {variable}.") from error
    return opened


@contextmanager
def _only_one(file: Path) -> Iterator[None]:
    """Two of us on one database would run every job twice."""
    try:
        lock = file.open("a+")
    except PermissionError as error:
        raise CommandError(f"{file.parent} can't be written: give it to the user who runs this.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise CommandError(
                f"buttcloud runs already, as process {lock.read().strip()}: stop that one first."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _is_full_disk(error: Exception) -> bool:
    return getattr(error, "errno", None) == errno.ENOSPC or "disk is full" in str(error)
