"""A pool on a cluster: the same calls, carried to many machines by Dask, which has them already.

pool.py         `ClusterPool`: the front, `Pool`'s own, with these behind it
nodes.py        the client's half of the protocol: who gets which task, and what becomes of those of a lost node
waiting.py      tasks that wait in the client
balance.py      how much each node gets
deaths.py       what an error tells of a death on a node
node.py         a node's half: its pool, what it has taken, what it gives back
target.py       what a worker does there
task.py         a task in the client, and its states
maps.py         maps and streams
pieces.py       their items, cut into pieces, each a task
blocks.py       `map_array`
common.py       arrays that the items of a map have in common, which cross once a node, too
progress.py     bars of maps
functions.py    functions, which cross the network once a node
questions.py    questions to nodes
words.py        what workers log, warn of and print
spent.py        where workers' time went
traces.py       records of tasks, on one clock
account.py      why a map was not faster
terms.py        limits and further tries
wire.py         objects to bytes and frames, for another machine
elsewhere.py    what shared arrays are there
shared/         what stands for locks, queues, counters and the like there
engine.py       what is asked of the cluster: the interface of its adapter
dask.py         the adapter of Dask

How it works, and why nothing is lost or done twice, is told in docs/design/cluster.md.
"""
