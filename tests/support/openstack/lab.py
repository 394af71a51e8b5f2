"""Keystone, Glance, Placement, Neutron and Nova in the named folder, until standard input ends: `lab.py FOLDER`.

All of them are the released ones; so is the database, Debian's MariaDB on a socket (SQLite can't take two creates at
once). There is no broker and no container, and nothing listens but on 127.0.0.1. It says `url NAME ADDRESS` for each
server and `ready`, or the end of the logs.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template
from typing import Any

import openstack
import pymysql

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
SHARE = Path(sys.prefix) / "etc"
WORD = "lab"  # every password
SERVERS = {"keystone": "/v3", "glance": "/versions", "placement": "/", "neutron": "/", "nova": "/"}
CATALOGUE = (
    ("glance", "image", ""),
    ("placement", "placement", ""),
    ("neutron", "network", ""),
    ("nova", "compute", "/v2.1"),
)
DATABASES = ("keystone", "glance", "placement", "neutron", "nova_api", "nova_cell0", "nova_cell1")
HOST = "lab"
# All that a table-making start needs, and no safety: the data lives as long as the tests.
DATABASE_OPTIONS = (
    "--skip-networking",
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=96M",
    "--innodb-log-file-size=48M",
    "--max-connections=400",
    "--performance-schema=0",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_general_ci",
)


class Lab:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.port = dict(zip(SERVERS, free_ports(len(SERVERS)), strict=True))
        self.url = {name: f"http://127.0.0.1:{port}" for name, port in self.port.items()}
        config = {f"OS_{name.upper()}_CONFIG_DIR": str(root / "etc" / name) for name in SERVERS}
        self.environment = (
            os.environ
            | config
            | {
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "PYTHONWARNINGS": "ignore",
                "PYTHONUNBUFFERED": "1",
                "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true",
            }
        )

    def up(self) -> None:
        for folder in ("log", "database", "state/lock", "state/images", "state/staging", "state/tasks"):
            (self.root / folder).mkdir(parents=True)
        self.configure()
        self.start_database()
        with ThreadPoolExecutor(1) as pool:
            nova_tables = pool.submit(self.make_nova_tables)
            self.make_keystone_tables()
            self.start("keystone")
            self.wait_for("keystone")
            self.fill_catalogue()
            self.make_other_tables()
            for name in ("glance", "placement", "neutron"):
                self.start(name)
            nova_tables.result()
        self.start("nova")
        for name in SERVERS:
            self.wait_for(name)
        self.fill()

    def down(self) -> None:
        for process in reversed(self.running.values()):
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    # --- configuration and database ---

    def configure(self) -> None:
        service = "\n".join(
            (
                "auth_type = password",
                f"auth_url = {self.url['keystone']}",
                f"password = {WORD}",
                "project_name = service",
                "user_domain_id = default",
                "project_domain_id = default",
                "region_name = RegionOne",
            )
        )
        values = self.url | {
            "root": str(self.root),
            **{f"{name}_tables": self.database(name) for name in DATABASES},
            "service": service,
        }
        for template in (HERE / "etc").rglob("*.*"):
            file = self.root / template.relative_to(HERE)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(template.read_text()).substitute(values))
        for pipeline in SHARE.glob("*/*paste.ini"):
            shutil.copy(pipeline, self.root / "etc" / pipeline.parent.name)
        # The identity that nova-compute looks for at its second start.
        (self.root / "state/compute_id").write_text(str(uuid.uuid5(uuid.NAMESPACE_DNS, HOST)))

    def start_database(self) -> None:
        server = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
        assert server, "there is no mariadbd"
        command = [
            server,
            "--no-defaults",
            f"--datadir={self.root}/database",
            f"--socket={self.root}/database.sock",
            f"--pid-file={self.root}/database.pid",
            *(["--user=root"] if os.getuid() == 0 else []),
            *DATABASE_OPTIONS,
        ]
        with self.log("database") as log:
            tables = subprocess.run([*command, "--bootstrap"], input=system_tables(), stdout=log, stderr=log)
            assert tables.returncode == 0, "MariaDB did not make its own tables"
            self.running["database"] = subprocess.Popen(command, stdout=log, stderr=log)
        self.until("the database answers", self.database_answers)
        self.sql(f"create user {WORD}@localhost identified by '{WORD}'")
        self.sql(f"grant all on *.* to {WORD}@localhost")
        for name in DATABASES:
            self.sql(f"create database {name}")

    def database_answers(self) -> bool:
        try:
            self.sql("select 1")
        except pymysql.err.OperationalError:
            return False
        return True

    def sql(self, statement: str, arguments: Any = None, database: str | None = None) -> None:
        where = f"{self.root}/database.sock"
        connection = pymysql.connect(unix_socket=where, user="root", database=database, autocommit=True)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, arguments)

    # --- tables ---

    def make_nova_tables(self) -> None:
        cell0, cell1 = (f"--database_connection {self.database(name)}" for name in ("nova_cell0", "nova_cell1"))
        self.manage(
            "nova.cmd.manage",
            "api_db sync",
            f"cell_v2 map_cell0 {cell0}",
            f"cell_v2 create_cell --name cell1 {cell1} --transport-url fake://",
            "db sync",
        )

    def make_keystone_tables(self) -> None:
        me = f"--keystone-user {os.getuid()} --keystone-group {os.getgid()}"
        address = f"{self.url['keystone']}/v3"
        urls = " ".join(f"--bootstrap-{kind}-url {address}" for kind in ("public", "admin", "internal"))
        self.manage(
            "keystone.cmd.manage",
            "db_sync",
            f"fernet_setup {me}",
            f"credential_setup {me}",
            f"bootstrap --bootstrap-password {WORD} --bootstrap-region-id RegionOne {urls}",
        )

    def make_other_tables(self) -> None:
        self.manage("glance.cmd.manage", "db_sync")
        self.manage("placement.cmd.manage", "db sync")
        self.services("neutron-tables", self.database("neutron"))
        self.seed_agent()

    def manage(self, module: str, *commands: str) -> None:
        name = module.split(".")[0]
        file = next((self.root / "etc" / name).glob("*.conf"))
        self.services("manage", module, *(f"--config-file {file} {command}" for command in commands))

    def services(self, *arguments: str) -> None:
        with self.log("tables") as log:
            command = [sys.executable, str(HERE / "services.py"), *arguments]
            subprocess.run(command, env=self.environment, stdout=log, stderr=log, check=True)

    def database(self, name: str) -> str:
        return f"mysql+pymysql://{WORD}:{WORD}@localhost/{name}?unix_socket={self.root}/database.sock&charset=utf8mb4"

    def seed_agent(self) -> None:
        """Neutron binds ports only on a host whose agent has reported. There is none, but the row that it writes."""
        about = {"bridge_mappings": {"public": "br-ex"}, "tunnel_types": ["vxlan"], "tunneling_ip": "127.0.0.1"}
        row = {
            "id": str(uuid.uuid4()),
            "agent_type": "Open vSwitch agent",
            "`binary`": "neutron-openvswitch-agent",
            "topic": "N/A",
            "host": HOST,
            "admin_state_up": 1,
            "configurations": json.dumps(about | {"datapath_type": "system", "vhostuser_socket_dir": str(self.root)}),
            "`load`": 0,
            "resources_synced": 1,
        } | dict.fromkeys(("created_at", "started_at", "heartbeat_timestamp"), time.strftime("%F %T", time.gmtime()))
        places = ", ".join(["%s"] * len(row))
        self.sql(f"insert into agents ({', '.join(row)}) values ({places})", list(row.values()), "neutron")

    # --- processes ---

    def start(self, name: str) -> None:
        command = [sys.executable, str(HERE / "services.py"), "serve", name, str(self.port[name])]
        with self.log(name) as log:
            self.running[name] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.root)

    def wait_for(self, name: str) -> None:
        self.until(f"{name} answers", lambda: self.answers(name))

    def answers(self, name: str) -> bool:
        assert self.running[name].poll() is None, f"{name} ended"
        try:
            urllib.request.urlopen(self.url[name] + SERVERS[name], timeout=10)
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False
        return True

    def until(self, what: str, look: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 300
        while not look():
            assert time.monotonic() < deadline, f"not in time: {what}"
            time.sleep(0.1)

    def log(self, name: str) -> Any:
        return (self.root / "log" / name).open("ab")

    # --- content ---

    def connect(self, user: str, project: str) -> openstack.connection.Connection:
        return openstack.connect(load_yaml_config=False, load_envvars=False, **self.access(user, project))

    def access(self, user: str, project: str) -> dict[str, Any]:
        return {
            "auth": {
                "auth_url": f"{self.url['keystone']}/v3",
                "username": user,
                "password": WORD,
                "project_name": project,
                "user_domain_id": "default",
                "project_domain_id": "default",
            },
            "region_name": "RegionOne",
        }

    def fill_catalogue(self) -> None:
        """Who is who and where, and a plain member of a project of ours."""
        identity = self.connect("admin", "admin").identity
        roles = {role.name: role for role in identity.roles()}
        project = identity.create_project(name="service", domain_id="default")
        for name, kind, path in CATALOGUE:
            user = identity.create_user(name=name, password=WORD, domain_id="default")
            for role in ("admin", "service"):
                identity.assign_project_role_to_user(project, user, roles[role])
            service = identity.create_service(name=name, type=kind)
            for interface in ("public", "internal", "admin"):
                identity.create_endpoint(
                    service_id=service.id, interface=interface, region_id="RegionOne", url=self.url[name] + path
                )
        ours = identity.create_project(name="buttcloud", domain_id="default")
        user = identity.create_user(name="orchestrator", password=WORD, domain_id="default")
        identity.assign_project_role_to_user(ours, user, roles["member"])

    def fill(self) -> None:
        """What a project needs for hubs, and flavours that can't be had: the host has 8 GB, the quota 50 GB."""
        admin = self.connect("admin", "admin")
        for name, memory in (("hub", 2048), ("no-host", 16384), ("over-quota", 10**6)):
            admin.compute.create_flavor(name=name, ram=memory, vcpus=1, disk=20)
        kind = {"visibility": "public", "disk_format": "raw", "container_format": "bare"}
        admin.image.create_image(name="debian-13", data=b"\0" * 1024, **kind)
        outside = admin.network.create_network(
            name="public", is_router_external=True, provider_network_type="flat", provider_physical_network="public"
        )
        admin.network.create_subnet(network_id=outside.id, ip_version=4, cidr="203.0.113.0/24", enable_dhcp=False)
        ours = self.connect("orchestrator", "buttcloud")
        inside = ours.network.create_network(name="hubs")
        subnet = ours.network.create_subnet(network_id=inside.id, ip_version=4, cidr="10.77.0.0/16")
        router = ours.network.create_router(name="hubs", external_gateway_info={"network_id": outside.id})
        ours.network.add_interface_to_router(router, subnet_id=subnet.id)
        ours.network.create_security_group(name="hubs")
        credential = ours.identity.create_application_credential(ours.current_user_id, name="orchestrator")
        clouds = {
            "lab": {
                "auth_type": "v3applicationcredential",
                "auth": {
                    "auth_url": f"{self.url['keystone']}/v3",
                    "application_credential_id": credential.id,
                    "application_credential_secret": credential.secret,
                },
                "region_name": "RegionOne",
            },
            "lab-admin": self.access("admin", "admin"),
        }
        # JSON is YAML.
        (self.root / "clouds.yaml").write_text(json.dumps({"clouds": clouds}))
        self.until("the compute host is there", lambda: list(admin.compute.hypervisors()))


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def system_tables() -> bytes:
    """MariaDB's own tables. Debian's folder and the files' first word change between releases."""
    head = b"create database mysql;\nuse mysql;\nset @auth_root_socket=NULL;\nset @skip_auth_anonymous=1;\n"
    names = ("system_tables.sql", "performance_tables.sql", "system_tables_data.sql")
    files = [next(Path("/usr/share").glob(f"m[ya]*/m*_{name}")) for name in names]
    return head + b"\n".join(file.read_bytes() for file in files)


def main(root: Path) -> None:
    lab = Lab(root)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    try:
        lab.up()
        for name, url in lab.url.items():
            print("url", name, url)
        print("ready", flush=True)
        sys.stdin.read()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        for log in sorted((root / "log").iterdir()):
            print(f"--- {log.name}:", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")
    finally:
        lab.down()


main(Path(sys.argv[1]))
