"""What lab.py starts, each in a process of its own. The configuration is where OS_…_CONFIG_DIR says.

services.py serve NAME PORT               one server of OpenStack, on loopback
services.py manage MODULE COMMAND...      what keystone-manage and its like do, one command after the other
services.py neutron-tables URL            Neutron's tables: its models know them whole, its migrations take a minute
"""

import importlib
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

APPLICATIONS = {
    "keystone": "keystone.wsgi.api",
    "glance": "glance.wsgi.api",
    "placement": "placement.wsgi.api",
    "neutron": "neutron.wsgi.api",
}


def main(what: str, *arguments: str) -> None:
    sys.argv = [what]  # the services read it too
    {"serve": serve, "manage": manage, "neutron-tables": make_neutron_tables}[what](*arguments)


def serve(name: str, port: str) -> None:
    import waitress

    # Their threads would keep a process that was asked to end.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    application = nova() if name == "nova" else importlib.import_module(APPLICATIONS[name]).application
    waitress.serve(application, host="127.0.0.1", port=int(port), threads=8, clear_untrusted_proxy_headers=True)


def manage(module: str, *commands: str) -> None:
    """Each command in a fork, so that the imports, which take seconds, are made once."""
    program = importlib.import_module(module)
    for command in commands:
        if os.fork() == 0:
            sys.argv = [module, *shlex.split(command)]
            sys.exit(program.main())
        status = os.waitstatus_to_exitcode(os.wait()[1])
        assert status == 0, f"{command}: {status}"


def make_neutron_tables(url: str) -> None:
    import sqlalchemy
    from neutron.db.migration.models import head

    head.get_metadata().create_all(sqlalchemy.create_engine(url))


def nova() -> Callable[..., Any]:
    """API, conductor, scheduler and compute in one process, so that the bus within a process is enough: the way of
    Nova's own functional tests.
    """
    from nova import monkey_patch

    monkey_patch.patch(backend="threading")
    import os_vif
    from nova.api.openstack import wsgi_app

    application = wsgi_app.init_application("osapi_compute", "nova-api-os-compute")
    from nova import service
    from nova.compute import rpcapi as compute
    from nova.conductor import rpcapi as conductor
    from nova.scheduler import rpcapi as scheduler

    os_vif.initialize()
    try:
        for binary, topics in (
            ("nova-conductor", {"topic": conductor.RPC_TOPIC}),
            ("nova-scheduler", {"topic": scheduler.RPC_TOPIC}),
            ("nova-compute", {"topic": compute.RPC_TOPIC, "topic_alt": compute.RPC_TOPIC_ALT}),
        ):
            service.Service.create(binary=binary, **topics).start()
    except BaseException:
        # The threads of what has started would keep a broken process alive.
        traceback.print_exc()
        os._exit(1)
    threading.Thread(target=map_host, daemon=True).start()
    return application


def map_host() -> None:
    """Tell the API's database in which cell the compute host is, once it is there."""
    from nova import context, exception, objects
    from nova.conf import CONF
    from nova.objects import host_mapping

    administrator = context.get_admin_context()
    while True:
        try:
            objects.HostMapping.get_by_host(administrator, CONF.host)
            return
        except exception.HostMappingNotFound:
            host_mapping.discover_hosts(administrator)
        time.sleep(0.2)


main(*sys.argv[1:])
