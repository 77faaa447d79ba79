"""What workers tell their client besides results: log records, warnings, and what they print.

| module | is |
| --- | --- |
| `client` | the client's side: what workers are told, and who hears what they say |
| `worker` | the worker's side: what is changed in its interpreter |
| `levels` | which records are wanted |
| `records` | log records, on both sides |
| `warned` | warnings, on both sides |
| `streams` | standard output and error, on both sides |

`docs/design/reports.md` tells how it gets from one to the other.
"""
