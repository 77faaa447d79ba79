"""What shoal has to withstand.

    python -m torture --seconds 120      everything at once (`make torture`)
    python -m torture.deaths 100000      one client, whose workers die all the time

A *life* is a process with a pool. In it *players* act, several at a time, and know what must come of each act; *evils*
kill and stop processes, take memory and descriptors away. The *referee* starts one life after another, kills some, and
looks whether anything is left of them.

| file | is |
| --- | --- |
| `__main__.py` | the referee |
| `life.py` | a life: its players, its evils, its end |
| `world.py` | what all in a life share; which ends of a task are right |
| `evils.py` | what is done to them |
| `acts/` | what players do |
| `tasks.py` | what workers run |
| `guest.py` | a process that was only given handles |
| `group.py` | a control group with little memory, for some lives |
| `ledger.py` | what a program takes of the machine |
| `deaths.py` | the program of that name |
"""
