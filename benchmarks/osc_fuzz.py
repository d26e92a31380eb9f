"""Fuzzing of the bridge: OSC messages with bytes changed or cut off, on connections that break in the middle."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time

from ..bridge.osc import encode, framed


def mutated(rng: random.Random) -> bytes:
    """A message of the protocol with up to three changes: bytes replaced, inserted or repeated, or its end cut off."""
    known = [
        encode("/hello", "isssiiii", 1, "", "fuzz", "stream", 44100, 512, 2, 0),
        encode("/block", "iihiib", 1, 0, 0, 8, 0, bytes(64)),
        encode("/ping", "id", 1, 0.5),
        encode("/stream/999/wet", "fi", 0.5, 3),
        encode("/stream/999/preset", "si", "bleed", 3),
        encode("/stream/999/blend", "sfsfi", "bleed", 0.5, "dull-highs", 0.4, 3),
        encode("/flush", "ii", 4, 1),
        encode("/reset", "ii", 4, 1),
        encode("/presets", "i", 5),
        encode("/status", "i", 6),
        encode("/job/list", "i", 6),
        encode("/job/render", "isssss", 1, "/nowhere/in.wav", "", "/nowhere/out.wav", "general", "draft"),
        b"#bundle\0" + bytes(8) + struct.pack(">i", -4),
    ]
    data = bytearray(rng.choice(known))
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[place : place + 1] = rng.randbytes(1)
            case 1:
                del data[place:]
            case 2:
                data[place:place] = data[: rng.randrange(40)]
            case _:
                data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)])
        if not data:
            data = bytearray(4)
    return bytes(data)


def fuzz(port: int, count: int, seed: int, rate: float = 0.0) -> int:
    """Send at least `count` mutated messages, half of them over TCP and half over UDP. Some TCP messages have no size
    before them, and connections break in the middle. rate: messages a second, or 0 for no limit. Returns how many were
    sent."""
    rng, sent, begun = random.Random(seed), 0, time.monotonic()

    def connect(kind: socket.SocketKind) -> socket.socket:
        opened = socket.socket(socket.AF_INET, kind)
        opened.settimeout(10.0)
        opened.connect(("127.0.0.1", port))
        opened.setblocking(False)
        return opened

    datagrams = connect(socket.SOCK_DGRAM)
    while sent < count:
        with contextlib.suppress(OSError), connect(socket.SOCK_STREAM) as connection:
            for _ in range(60):
                data = mutated(rng)
                if rng.random() < 0.5 and len(data) < 60000:
                    datagrams.send(data)
                elif rng.random() < 0.05:
                    connection.send(data)
                else:
                    connection.send(framed(data))
                sent += 1
                if rate and sent % 10 == 0:
                    time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
                for one in (connection, datagrams):
                    with contextlib.suppress(BlockingIOError):
                        one.recv(1 << 16)
        if rng.random() < 0.1:
            datagrams.close()
            datagrams = connect(socket.SOCK_DGRAM)
    datagrams.close()
    return sent
