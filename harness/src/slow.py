"""Makes the way from this machine to some others slow and lossy, for kernels without `netem` as well as with it.

    slow.py MILLISECONDS PERCENT SEED ADDRESS...

What is sent to those addresses is routed into a tunnel whose other end is this program. It drops some packets, drawn from
the seed, and sends the others on after the delay, in their order. It counts what it did in `/lab/slow.count`. When it ends,
its tunnel ends with it, and the routes into it.
"""
import collections
import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
NAME = "slow0"


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


delay, percent, seed, addresses = int(sys.argv[1]) / 1000, int(sys.argv[2]), sys.argv[3], sys.argv[4:]
tunnel = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tunnel, TUNSETIFF, struct.pack("16sH22x", NAME.encode(), IFF_TUN | IFF_NO_PI))
onward = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
onward.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
ip("link", "set", NAME, "up")
for address in addresses:
    # The source stays the address that the others know.
    words = ip("-o", "route", "get", address).split()
    ip("route", "add", address + "/32", "dev", NAME, "src", words[words.index("src") + 1])

drawn = random.Random(seed)
waiting = collections.deque()
passed = dropped = 0
while True:
    left = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    if select.select([tunnel], [], [], left)[0]:
        packet = os.read(tunnel, 65536)
        if packet[0] >> 4 != 4:
            continue  # The kernel greets IPv6 routers on every new device.
        if drawn.random() * 100 < percent:
            dropped += 1
        else:
            waiting.append((time.monotonic() + delay, packet))
        with open("/lab/slow.count", "w") as count:
            count.write(f"{passed} {dropped}\n")
    while waiting and waiting[0][0] <= time.monotonic():
        packet = waiting.popleft()[1]
        onward.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
        passed += 1
