#!/usr/bin/env python3
"""Records what an agent sees of containers, instant by instant, and packs it into the fixture beside this file.

  record.py record ENGINE_SOCKET METRICS_URL RAW_FILE INSTANTS [INTERVAL_SECONDS]
  record.py pack RAW_FILE HOST_NAME > run.jsonl

`record` needs root on a host with cgroup v1 and an engine whose cgroups are /sys/fs/cgroup/*/docker/ID. For each running
container it reads what cAdvisor exports from cgroup v1 and /proc/PID/net/dev, under cAdvisor's names and with cAdvisor's
arithmetic (google/cadvisor, lib/metrics/prometheus.go and lib/container/libcontainer/handler.go), and right after that
what the outhaul that watches the same engine shows at METRICS_URL. One line of JSON for each instant goes to RAW_FILE.

`pack` turns these rows into columns, one line a series, and replaces the host's name (HOST_NAME) by a made-up one.
Nothing else is altered: a number in the fixture is the shortest decimal text of the double that was read.
"""

import http.client
import json
import re
import socket
import sys
import time
import urllib.request
from datetime import datetime

CGROUP = "/sys/fs/cgroup"
DEVICES = {}
LABELS = {"instance": "roof-3.example.net", "job": "outhaul"}
HOST_NAME = "roof-3"

# Name to (kind, help), help texts in our own words.
FAMILIES = {
    "container_cpu_usage_seconds_total": ("counter", "Processor time used."),
    "container_cpu_user_seconds_total": ("counter", "Processor time used in user mode."),
    "container_cpu_system_seconds_total": ("counter", "Processor time used in the kernel."),
    "container_cpu_cfs_periods_total": ("counter", "Periods of the CPU quota that have passed."),
    "container_cpu_cfs_throttled_periods_total": ("counter", "Periods in which the CPU quota was used up."),
    "container_cpu_cfs_throttled_seconds_total": ("counter", "Time spent waiting for the next period of the CPU quota."),
    "container_memory_usage_bytes": ("gauge", "Memory in use, page cache included."),
    "container_memory_working_set_bytes": ("gauge", "Memory in use without the inactive page cache."),
    "container_memory_rss": ("gauge", "Anonymous memory."),
    "container_memory_cache": ("gauge", "Page cache."),
    "container_memory_mapped_file": ("gauge", "Memory mapped files."),
    "container_memory_failcnt": ("counter", "How often the memory limit was reached."),
    "container_memory_failures_total": ("counter", "Page faults."),
    "container_oom_events_total": ("counter", "Processes killed because memory ran out, as the kernel counts them."),
    "container_processes": ("gauge", "Processes running."),
    "container_network_receive_bytes_total": ("counter", "Bytes received."),
    "container_network_receive_packets_total": ("counter", "Packets received."),
    "container_network_receive_errors_total": ("counter", "Errors while receiving."),
    "container_network_receive_packets_dropped_total": ("counter", "Packets dropped while receiving."),
    "container_network_transmit_bytes_total": ("counter", "Bytes sent."),
    "container_network_transmit_packets_total": ("counter", "Packets sent."),
    "container_network_transmit_errors_total": ("counter", "Errors while sending."),
    "container_network_transmit_packets_dropped_total": ("counter", "Packets dropped while sending."),
    "container_fs_reads_total": ("counter", "Reads that reached the device."),
    "container_fs_writes_total": ("counter", "Writes that reached the device."),
    "container_fs_reads_bytes_total": ("counter", "Bytes read from the device."),
    "container_fs_writes_bytes_total": ("counter", "Bytes written to the device."),
    "container_last_seen": ("gauge", "When the container was last seen by the agent."),
    "container_spec_memory_limit_bytes": ("gauge", "The memory limit, 0 for none."),
}
UNLIMITED = 1 << 62


class Engine(http.client.HTTPConnection):
    """The engine's API over its socket."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def get(self, address):
        self.request("GET", address)
        return json.loads(self.getresponse().read())


def text(*path):
    with open("/".join(path), encoding="ascii") as file:
        return file.read()


def pairs(*path):
    return {words[0]: int(words[1]) for words in map(str.split, text(*path).splitlines()) if len(words) == 2}


def device(numbers):
    """The name of a block device by its numbers."""
    if numbers not in DEVICES:
        uevent = text("/sys/dev/block", numbers, "uevent")
        DEVICES[numbers] = "/dev/" + re.search("^DEVNAME=(.*)$", uevent, re.M)[1]
    return DEVICES[numbers]


def resources(id, name):
    """Samples of one container: (family, labels, number), in the order in which cAdvisor exports them."""

    def sample(family, number, **labels):
        found.append((family, dict(LABELS, name=name, **labels), number))

    found = []
    memory = pairs(CGROUP, "memory/docker", id, "memory.stat")
    usage = int(text(CGROUP, "memory/docker", id, "memory.usage_in_bytes"))
    limit = int(text(CGROUP, "memory/docker", id, "memory.limit_in_bytes"))
    ticks = pairs(CGROUP, "cpuacct/docker", id, "cpuacct.stat")
    quota = int(text(CGROUP, "cpu/docker", id, "cpu.cfs_quota_us"))
    processes = text(CGROUP, "memory/docker", id, "cgroup.procs").split()
    sample("container_cpu_usage_seconds_total", int(text(CGROUP, "cpuacct/docker", id, "cpuacct.usage")) / 1e9)
    sample("container_cpu_user_seconds_total", ticks["user"] / 100)
    sample("container_cpu_system_seconds_total", ticks["system"] / 100)
    if quota > 0:
        throttling = pairs(CGROUP, "cpu/docker", id, "cpu.stat")
        sample("container_cpu_cfs_periods_total", throttling["nr_periods"])
        sample("container_cpu_cfs_throttled_periods_total", throttling["nr_throttled"])
        sample("container_cpu_cfs_throttled_seconds_total", throttling["throttled_time"] / 1e9)
    sample("container_memory_usage_bytes", usage)
    sample("container_memory_working_set_bytes", max(0, usage - memory["total_inactive_file"]))
    sample("container_memory_rss", memory["total_rss"])
    sample("container_memory_cache", memory["total_cache"])
    sample("container_memory_mapped_file", memory["total_mapped_file"])
    sample("container_memory_failcnt", int(text(CGROUP, "memory/docker", id, "memory.failcnt")))
    sample("container_memory_failures_total", memory["total_pgfault"], failure_type="pgfault")
    sample("container_memory_failures_total", memory["total_pgmajfault"], failure_type="pgmajfault")
    sample("container_oom_events_total", pairs(CGROUP, "memory/docker", id, "memory.oom_control")["oom_kill"])
    sample("container_processes", len(processes))
    network(processes[0], sample)
    for file, which in (("io_serviced", ""), ("io_service_bytes", "_bytes")):
        for line in text(CGROUP, "blkio/docker", id, f"blkio.throttle.{file}_recursive").splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in ("Read", "Write"):
                family = f"container_fs_{words[1].lower()}s{which}_total"
                sample(family, int(words[2]), device=device(words[0]))
    sample("container_last_seen", int(time.time()))
    sample("container_spec_memory_limit_bytes", 0 if limit >= UNLIMITED else limit)
    return found


def network(pid, sample):
    columns = [("bytes", 0), ("packets", 1), ("errors", 2), ("packets_dropped", 3)]
    for line in text("/proc", pid, "net/dev").splitlines()[2:]:
        interface, _, numbers = line.partition(":")
        numbers = list(map(int, numbers.split()))
        if interface.strip() == "lo":
            continue
        for direction, offset in (("receive", 0), ("transmit", 8)):
            for what, column in columns:
                family = f"container_network_{direction}_{what}_total"
                sample(family, numbers[offset + column], interface=interface.strip())


def began(state):
    """When the container was started, in milliseconds since 1970."""
    moment = re.sub(r"(\.\d{6})\d*Z$", r"\1+00:00", state["StartedAt"])
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def exposition(page):
    """Families (name to kind and help) and samples (family, labels, number as text) of a page in the text format."""
    families, found = {}, []
    for line in page.splitlines():
        if line.startswith("# "):
            _, what, family, rest = (line + " ").split(" ", 3)
            kind, help = families.get(family, ("untyped", ""))
            families[family] = (rest.strip(), help) if what == "TYPE" else (kind, rest.strip())
        elif line:
            name, labels, number = re.fullmatch(r"([a-zA-Z0-9_:]+)(?:\{(.*)\})? (\S+)", line).groups()
            labels = dict(re.findall(r'([a-zA-Z0-9_]+)="((?:[^"\\]|\\.)*)"', labels or ""))
            assert not any("\\" in value for value in labels.values()), "no label needs escapes here"
            family = name if name in families else re.sub("_(bucket|sum|count)$", "", name)
            found.append((family, dict(labels, __name__=name), number))
    return families, found


def instant(engine, page_address, starts):
    at = time.time()
    samples, families = [], dict(FAMILIES)
    for container in engine.get("/containers/json"):
        id, name = container["Id"], container["Names"][0][1:]
        try:
            pid = text(CGROUP, "memory/docker", id, "cgroup.procs").split()[0]
            if starts.get(id, (None, None))[0] != pid:
                starts[id] = (pid, began(engine.get(f"/containers/{id}/json")["State"]))
            of_container = resources(id, name)
        except (OSError, IndexError) as gone:
            print(f"{name} is not running after all: {gone!r}", file=sys.stderr)
            continue
        for family, labels, number in of_container:
            start = starts[id][1] if families[family][0] == "counter" else None
            samples.append((family, dict(labels, __name__=family), repr(number), start))
    page = urllib.request.urlopen(page_address, timeout=5).read().decode()
    of_outhaul, shown = exposition(page)
    families.update(of_outhaul)
    # The engine's own count of what ran out of memory has the same name as the kernel's; the kernel's is kept.
    taken = {tuple(sorted(labels.items())) for _, labels, _, _ in samples}
    for family, labels, number in shown:
        if tuple(sorted(labels.items())) not in taken:
            samples.append((family, labels, number, None))
    return {"at": round(at * 1000), "families": families, "samples": samples}


def record(engine_socket, page_address, raw, instants, interval=10):
    due = time.time()
    starts = {}
    for number in range(int(instants)):
        row = instant(Engine(engine_socket), page_address, starts)
        with open(raw, "a", encoding="ascii") as file:
            file.write(json.dumps(row) + "\n")
        took = time.time() - due
        print(f"{number + 1} of {instants}: {len(row['samples'])} samples in {took:.2f} s", flush=True)
        due = max(due + float(interval), time.time())
        time.sleep(max(0, due - time.time()))


def pack(raw, host_name):
    """Columns: `=` is "as before", `-` is "not there"; `starts` says from which instant on which counter start holds."""
    instants, families, series = [], {}, {}
    with open(raw, encoding="ascii") as rows:
        for number, row in enumerate(map(json.loads, rows)):
            instants.append(row["at"])
            for family, labels, value, start in row["samples"]:
                families.setdefault(family, row["families"][family])
                labels = {k: HOST_NAME if v == host_name else v for k, v in sorted(labels.items())}
                key = tuple(labels.items())
                one = series.setdefault(key, {"family": family, "labels": labels, "values": [], "starts": []})
                one["values"] += ["-"] * (number - len(one["values"]))
                one["values"].append(value)
                if start is not None and (not one["starts"] or one["starts"][-1][1] != start):
                    one["starts"].append([number, start])
    print(json.dumps({"instants_ms": [instants[0]] + [b - a for a, b in zip(instants, instants[1:])]}))
    for family, (kind, help) in families.items():
        print(json.dumps({"family": family, "kind": kind, "help": help}))
    for one in series.values():
        one["values"] += ["-"] * (len(instants) - len(one["values"]))
        before, column = "-", []
        for value in one["values"]:
            column.append("=" if value == before and value != "-" else value)
            before = value
        one["values"] = " ".join(column)
        print(json.dumps(one, separators=(",", ":")))


if __name__ == "__main__":
    {"record": record, "pack": pack}[sys.argv[1]](*sys.argv[2:])
