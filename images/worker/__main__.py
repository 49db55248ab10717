"""`python -m worker SHARD.json`: run one shard, append its events to the file beside it.

The roots come from the environment: CONSORT_AUDIO (of a fit: the folder of its arrays), CONSORT_OUTPUT,
CONSORT_WEIGHTS, CONSORT_SCRATCH, CONSORT_EVENTS, CONSORT_FFMPEG; CONSORT_GPUS holds the UUIDs of the GPUs that the
host meant, CONSORT_MODULES the environment's own packages. Standard input is a dead man's switch: when it closes, the
worker commits what is finished and exits with 75, after some seconds even in the middle of an item.
"""

import faulthandler
import json
import logging
import os
import platform
import signal
import sys
import threading
import time
import typing as tp

from worker import catalog, fingerprint, protocol, schema
from worker.errors import CannotStart, DeviceMissing
from worker.protocol import Channel, Event, Shard
from worker.work import contexts, devices, fitting, pipeline

_LOG = logging.getLogger("worker")
_HEARTBEAT = 5.0  # seconds
# Seconds once the host is gone: for the item at hand, which is cut short if it takes longer; to write a fit's state.
_PATIENCE = {"extract": 10.0, "fit": 20.0}


def main() -> int:
    """Return the exit code, by `protocol.exit_code`."""
    claim_stdout()
    faulthandler.enable()  # a crash in native code leaves its stack in the log
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        return _run(*_start(sys.argv[1:]))
    except CannotStart as error:
        print("worker: {}".format(error), file=sys.stderr)
        return protocol.exit_code(error)
    except OSError as error:
        print("worker: cannot write events: {}".format(protocol.one_line(error)), file=sys.stderr)
        return protocol.exit_code(error)


def _start(arguments: tp.Sequence[str]) -> tp.Tuple[Shard, pipeline.Roots, Channel]:
    if len(arguments) != 1:
        raise CannotStart("runs one shard: python -m worker SHARD.json")
    try:
        shard = _read(arguments[0])
        roots = pipeline.Roots(*[os.environ["CONSORT_" + name.upper()] for name in pipeline.Roots._fields])
        fingerprint.refuse_other_code(shard.worker, os.environ.get("CONSORT_MODULES", "").split(), shard.lock)
        return shard, roots, Channel(os.environ["CONSORT_EVENTS"])
    except (KeyError, OSError, ValueError) as error:
        raise CannotStart("cannot start: {}".format(protocol.one_line(error))) from error


def _run(shard: Shard, roots: pipeline.Roots, channel: Channel) -> int:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    watch_host(stop, _PATIENCE[shard.kind])
    packages = dict(contexts.packages(), python=platform.python_version())
    _LOG.info("device %s; NVIDIA_VISIBLE_DEVICES: %s", shard.device, os.environ.get("NVIDIA_VISIBLE_DEVICES", "-"))
    try:
        device = devices.look(shard.device, [gpu for gpu in os.environ.get("CONSORT_GPUS", "").split(",") if gpu])
        if device.kind == "cuda":
            devices.probe(shard.gpu_module)
    except DeviceMissing as error:
        _LOG.error("%s", error)
        channel.emit(Event("device_missing", message=str(error)))
        return protocol.exit_code(error)
    channel.emit(Event("hello", protocol=protocol.VERSION, packages=packages, device=device.name))
    threading.Thread(target=_beat, args=(channel,), daemon=True).start()
    catalog.add_plugins(shard.plugins)
    run = fitting.run if shard.kind == "fit" else pipeline.run
    return run(shard, roots, channel, stop, device)


def _read(path: str) -> Shard:
    with open(path, encoding="ascii") as f:
        shard = schema.build(Shard, json.load(f), "shard")
    if shard.protocol != protocol.VERSION:
        raise ValueError("the shard speaks protocol {}, this worker {}".format(shard.protocol, protocol.VERSION))
    return shard


def _beat(channel: Channel) -> None:
    while True:
        time.sleep(_HEARTBEAT)
        channel.emit(Event("heartbeat"))


def claim_stdout() -> None:
    """Point fd 1 at stderr: prints of libraries, C code and child processes end up in the log."""
    sys.stdout.flush()
    os.dup2(2, 1)


def watch_host(stop: threading.Event, patience: float) -> None:
    """Set `stop` when standard input closes, as it does whatever ends the host; end the process after that.

    Args:
        stop: looked at between two steps, so that what is finished is committed.
        patience: seconds until the process ends with 75, whatever it is in the middle of.
    """

    def watch() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass  # closed from the start is closed as well
        stop.set()
        time.sleep(patience)
        os._exit(protocol.EXIT_AGAIN)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    ended = main()
    # Native libraries may hang or crash while they are torn down; everything is committed by now.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)
