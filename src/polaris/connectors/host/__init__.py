"""This machine as a managed system, read with psutil.

Readings (units in UCUM; `/s` ones are rates since the last collection and missing in the first):

| Name | Unit | Meaning |
|---|---|---|
| `system.cpu.utilization` | `1` | share of all processors' time not idle, 0 to 1, since the last collection |
| `system.cpu.logical.count` | `{cpu}` | logical processors |
| `system.cpu.load_average.1m`, `.5m`, `.15m` | `{thread}` | runnable threads, averaged |
| `system.memory.usage`, `.available`, `.limit` | `By` | used, available without swapping, installed |
| `system.memory.utilization` | `1` | share that is not available |
| `system.paging.usage`, `.limit` | `By` | swap used and configured |
| `system.paging.utilization` | `1` | share of swap used; missing without swap |
| `system.filesystem.usage[path]`, `.limit[path]` | `By` | per configured path |
| `system.filesystem.utilization[path]` | `1` | used share of what unprivileged users can have |
| `system.disk.io.read.rate`, `.write.rate` | `By/s` | all physical disks |
| `system.disk.operations.read.rate`, `.write.rate` | `{operation}/s` | all physical disks |
| `system.network.io.receive.rate`, `.transmit.rate` | `By/s` | all interfaces but the loopback |
| `system.network.errors.rate`, `system.network.dropped.rate` | `{packet}/s` | both directions |
| `system.process.count` | `{process}` | processes of the machine |
| `system.boot_time` | `s` | when it booted, Unix time |
| `system.uptime` | `s` | time since then |
| `process.alive[p]` | `1` | 1 when at least one process matches `p`, else 0 |
| `process.count[p]`, `process.thread.count[p]` | `{process}`, `{thread}` | matching processes, their threads |
| `process.cpu.utilization[p]` | `1` | processors kept busy by them (2 = two whole ones) since the last collection |
| `process.memory.usage[p]` | `By` | their resident memory |

Names follow the OpenTelemetry semantic conventions for system and process metrics where those have one; counters are
given as rates under their name with `.rate`.
"""

from polaris.connectors.host._connector import HostConnector
from polaris.connectors.host._options import HostOptions

__all__ = ["HostConnector", "HostOptions"]
