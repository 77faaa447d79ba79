"""CPython's tests of queues pass with shoal's."""

import shoal
from tests.cpython.harness import install

QUEUES = {"Queue": shoal.Queue, "JoinableQueue": shoal.JoinableQueue}
AT_ONCE = "there is no feeder thread: what can't travel is an error of `put`, at once, and nothing is put"

install(
    globals(),
    ["_TestQueue"],
    replaced={**QUEUES, "Event": shoal.Event},
    patched={
        **{f"multiprocessing.{name}": kind for name, kind in QUEUES.items()},
        "multiprocessing.queues.Queue": shoal.Queue,
    },
    deviations={
        "_TestQueue.test_queue_feeder_donot_stop_onexc": AT_ONCE,
        "_TestQueue.test_queue_feeder_on_queue_feeder_error": AT_ONCE,
    },
)
install(
    globals(),
    ["TestSimpleQueue"],
    patched={"multiprocessing.SimpleQueue": shoal.SimpleQueue, "multiprocessing.Event": shoal.Event},
    deviations={"TestSimpleQueue.test_closed": "there is no pipe whose ends could be closed"},
)
