"""Shared things on other machines than their own: locks, queues, counters and the like, as they are at home.

refs.py         what a thing is called elsewhere, and how it travels
proxies.py      what stands for it there
values.py       the same for values and arrays of C types
parcels.py      items of queues, packed where they are put and opened where they are got
homes.py        the things of this process that others know, and who asks for something to be done to them
twins.py        the threads that do it: one for each thread elsewhere
relay.py        a node's process, between its workers and the client
ways.py         a worker's way to it
links.py        the client's way to what is at home on a node
bars.py         bars, which are counted on the nodes and drawn by the client

    worker: proxy ── ways ──▶ relay ── the link ──▶ homes ──▶ twin: does it to the thing
                ◀── answer ──────────────────────────────────┘

How it works, and what a death leaves, is told in docs/design/cluster-shared.md.
"""
