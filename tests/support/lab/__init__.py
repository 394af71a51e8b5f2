"""A laboratory of real machines: each has its own network, processes, mounts and Docker engine, all on this computer.

`lab.py` is the room with its switch and the swarm's manager, `machine.py` one machine, `driver.py` the cloud that makes
and destroys them, `image.py` a pub that costs nothing to run.
"""
