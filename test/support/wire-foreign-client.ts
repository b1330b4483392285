/** A client of the protocol in Python, written from proto/README.md with the classes that protoc generates: what a script of it begins with. */
const foreignLibrary = `
import json, socket, struct, sys, time
import vra_pb2 as vra

TABLE = []
for n in range(256):
    for _ in range(8):
        n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
    TABLE.append(n)

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF

assert crc32c(b"123456789") == 0xE3069283

TYPES = {1: vra.Hello, 2: vra.Welcome, 3: vra.WriteBatch, 4: vra.Marker, 5: vra.Ack, 6: vra.Heartbeat,
         7: vra.CheckpointRequest, 8: vra.AgentStatus, 9: vra.Error, 10: vra.Goodbye}
NUMBERS = {message: number for number, message in TYPES.items()}

def frame(message):
    body = message.SerializeToString()
    head = b"VRAF" + struct.pack("<BBHI", 1, NUMBERS[type(message)], 0, len(body))
    return head + struct.pack("<I", crc32c(head + body)) + body

class Session:
    def __init__(self, port, number, resumable_from, last_numbered, vpg="orders", agent="orders-host", size=1048576, tls=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        hello = vra.Hello(protocol_version_min=1, protocol_version_max=1, vpg=vpg, agent=agent,
                          session_number=number, software="a client in another language",
                          volumes=[vra.HelloVolume(name="root", size_bytes=size)],
                          resumable_from=resumable_from, last_numbered=last_numbered)
        self.send(hello)
        self.welcome = self.receive()
        if isinstance(self.welcome, vra.Error):
            raise RuntimeError(self.welcome.code)
        assert isinstance(self.welcome, vra.Welcome), self.welcome
        self.credit, self.spent = self.welcome.credit_bytes, 0
        self.durable = self.welcome.durable

    def send(self, message):
        self.socket.sendall(frame(message))

    def send_in_stream(self, message):
        data = frame(message)
        while self.spent + len(data) > self.credit:
            self.take()
        self.spent += len(data)
        self.socket.sendall(data)

    def exactly(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def receive(self):
        head = self.exactly(16)
        magic, version, number, reserved, size, crc = struct.unpack("<4sBBHII", head)
        assert magic == b"VRAF" and version == 1 and reserved == 0
        body = self.exactly(size)
        assert crc == crc32c(head[:12] + body)
        message = TYPES[number]()
        message.ParseFromString(body)
        return message

    def take(self):
        message = self.receive()
        if isinstance(message, vra.Ack):
            self.durable, self.credit = message.durable, message.credit_bytes
        elif isinstance(message, vra.Error):
            raise RuntimeError(message.code)
        return message

    def wait_for(self, sequence):
        while self.durable.sequence < sequence:
            self.take()

def batch(first, writes, volume):
    """Writes are (offset, data), or (offset, length) for zeros; the payload is stored as it is, a block a write."""
    data = [w[1] for w in writes if isinstance(w[1], bytes)]
    length = lambda w: len(w[1]) if isinstance(w[1], bytes) else w[1]
    return vra.WriteBatch(
        generation=1, first_sequence=first, write_count=len(writes), timestamp_micros=time.time_ns() // 1000,
        volumes=b"".join(struct.pack("<H", volume) for w in writes),
        offsets=b"".join(struct.pack("<Q", w[0]) for w in writes),
        lengths=b"".join(struct.pack("<I", length(w)) for w in writes),
        flags=bytes(0 if isinstance(w[1], bytes) else 1 for w in writes),
        blocks=b"".join(struct.pack("<II", len(d), len(d)) for d in data),
        payload=b"".join(data))
`

/**
 * Connects to the port in its first argument, writes ten batches and a checkpoint marker, waits until all are durable, reconnects,
 * resends the last batch and goes on from there. It prints one JSON object a line.
 */
export const foreignClient = `${foreignLibrary}
port = int(sys.argv[1])
nothing = vra.Position()
session = Session(port, 1, nothing, nothing)
volume = session.welcome.volumes[0]
sequence = session.welcome.durable.sequence
assert (session.welcome.durable.generation, sequence) == (0, 0)
for _ in range(10):
    last_first = sequence + 1
    writes = [(512 * (last_first + i), bytes([last_first + i & 255]) * 512) for i in range(3)] + [(0, 4096)]
    session.send_in_stream(batch(last_first, writes, volume.number))
    sequence += len(writes)
sequence += 1
coordinator = session.welcome.coordinator
marker = vra.Marker(generation=1, sequence=sequence, term=coordinator.term, counter=coordinator.counter + 1,
                    timestamp_micros=time.time_ns() // 1000, participants=[session.welcome.stream],
                    volumes=[vra.MarkerVolume(number=volume.number, size_bytes=volume.size_bytes, included=True)])
session.send_in_stream(marker)
session.wait_for(sequence)
print(json.dumps({"durable": session.durable.sequence}), flush=True)
session.send(vra.Goodbye())
session.socket.close()

here = vra.Position(generation=1, sequence=sequence)
session = Session(port, 2, vra.Position(generation=1, sequence=last_first - 1), here)
assert session.welcome.durable == here
session.send_in_stream(batch(last_first, writes, volume.number))
session.send_in_stream(batch(sequence + 1, [(1048576 - 512, b"z" * 512)], volume.number))
session.wait_for(sequence + 1)
print(json.dumps({"resumed": session.durable.sequence}), flush=True)
session.send(vra.Heartbeat(timestamp_micros=1))
session.send_in_stream(batch(sequence + 2, [(1048576, b"z" * 512)], volume.number))
try:
    while True:
        session.take()
except RuntimeError as refused:
    print(json.dumps({"refused": str(refused)}), flush=True)
`

/**
 * Everything that the specification promises to a client, against a real daemon. Arguments: the port, a directory for what the volume
 * must be at each checkpoint, and for TLS the directory of the certificates. It prints one JSON object a line: what it did, and what came.
 */
export const foreignConversation = `${foreignLibrary}
import os, random, ssl

port, directory = int(sys.argv[1]), sys.argv[2]
tls = None
if len(sys.argv) > 3:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.load_verify_locations(sys.argv[3] + "/authority.crt")
    tls.load_cert_chain(sys.argv[3] + "/foreign.crt", sys.argv[3] + "/foreign.key")
rng = random.Random(7)
model = bytearray(1048576)
sequence, counter, number = 0, 0, time.time_ns() // 1000

def say(**facts):
    print(json.dumps(facts), flush=True)

def at(sequence):
    return vra.Position(generation=1 if sequence else 0, sequence=sequence)

def connect(resumable_from=None, **other):
    global number, counter
    number += 1
    begin = sequence if resumable_from is None else resumable_from
    session = Session(port, number, at(begin), at(sequence), **{"vpg": "raw", "agent": "foreign", "tls": tls, **other})
    counter = max(counter, session.welcome.coordinator.counter)
    return session

def refusal(work):
    """The code of the Error that the work ends with; the VRA then closes the connection."""
    try:
        session = work()
        while True:
            session.take()
    except RuntimeError as refused:
        return str(refused)

def run_of(byte, size):
    """An LZ4 block by hand: one literal, a match of offset 1 over most, and the five literals that a block ends with."""
    match = size - 6 - 4 - 15
    return bytes([0x1F, byte, 1, 0]) + b"\\xff" * (match // 255) + bytes([match % 255]) + bytes([0x50]) + bytes([byte]) * 5

def numbered(writes):
    """A batch of (offset, data), (offset, zeros) and (offset, byte, size), which goes as an LZ4 block; the model follows."""
    global sequence
    columns, blocks, payload = [], [], []
    for write in writes:
        if len(write) == 3:
            offset, byte, size = write
            data, stored = bytes([byte]) * size, run_of(byte, size)
        elif isinstance(write[1], bytes):
            (offset, data), stored = write, write[1]
        else:
            offset, data, stored = write[0], bytes(write[1]), None
        model[offset:offset + len(data)] = data
        columns.append((offset, len(data), 1 if stored is None else 0))
        if stored is not None:
            blocks.append((len(data), len(stored)))
            payload.append(stored)
    message = vra.WriteBatch(
        generation=1, first_sequence=sequence + 1, write_count=len(writes), timestamp_micros=time.time_ns() // 1000,
        volumes=struct.pack("<H", 1) * len(writes),
        offsets=b"".join(struct.pack("<Q", c[0]) for c in columns),
        lengths=b"".join(struct.pack("<I", c[1]) for c in columns),
        flags=bytes(c[2] for c in columns),
        blocks=b"".join(struct.pack("<II", *b) for b in blocks), payload=b"".join(payload))
    sequence += len(writes)
    return message

def some():
    kinds = [lambda o: (o, rng.randbytes(512 * rng.randint(1, 8))), lambda o: (o, 512 * rng.randint(1, 64)),
             lambda o: (o, rng.randint(1, 255), 512 * rng.randint(1, 128))]
    return numbered([rng.choice(kinds)(512 * rng.randint(0, 1900)) for _ in range(rng.randint(1, 12))])

def marker(session, request_id=0):
    global sequence, counter
    sequence, counter = sequence + 1, counter + 1
    with open(directory + "/" + str(counter), "wb") as reference:
        reference.write(model)
    session.send_in_stream(vra.Marker(
        generation=1, sequence=sequence, term=session.welcome.coordinator.term, counter=counter,
        timestamp_micros=time.time_ns() // 1000, participants=[session.welcome.stream], request_id=request_id,
        volumes=[vra.MarkerVolume(number=1, size_bytes=1048576, included=True)]))

def past_the_end(session):
    session.send(vra.WriteBatch(
        generation=1, first_sequence=sequence + 1, write_count=1, timestamp_micros=1, volumes=struct.pack("<H", 1),
        offsets=struct.pack("<Q", 1048576 - 512), lengths=struct.pack("<I", 1024), flags=bytes([1])))
    return session

def zeros_at(first, count):
    return vra.WriteBatch(
        generation=1, first_sequence=first, write_count=count, timestamp_micros=1, volumes=struct.pack("<H", 1) * count,
        offsets=struct.pack("<Q", 0) * count, lengths=struct.pack("<I", 512) * count, flags=bytes([1]) * count)

def sent(message):
    session = connect()
    session.send(message)
    return session

def broken_checksum():
    session = connect()
    data = bytearray(frame(zeros_at(sequence + 1, 1)))
    data[-1] ^= 1
    session.socket.sendall(data)
    return session

say(unknownVpg=refusal(lambda: connect(vpg="nothing")))
say(stranger=refusal(lambda: connect(agent="stranger")))
say(otherSize=refusal(lambda: connect(size=524288)))

session = connect()
batches = [some() for _ in range(20)]
for message in batches:
    session.send_in_stream(message)
marker(session)
session.wait_for(sequence)
say(durable=session.durable.sequence == sequence)

session.socket.close()
session = connect(resumable_from=batches[-3].first_sequence - 1)
say(resumedAt=session.welcome.durable.sequence == sequence)
for message in batches[-3:]:
    session.send_in_stream(message)
session.send_in_stream(some())
session.wait_for(sequence)
session.send_in_stream(batches[0])
session.send_in_stream(some())
marker(session)
session.wait_for(sequence)
say(duplicatesDropped=True)

say(gap=refusal(lambda: sent(zeros_at(sequence + 2, 1))))
say(straddle=refusal(lambda: sent(zeros_at(sequence, 2))))
say(checksum=refusal(broken_checksum))
say(pastTheEnd=refusal(lambda: past_the_end(connect())))
say(neverSent=refusal(lambda: connect(resumable_from=sequence + 5)))

session = connect()
say(nothingStored=session.welcome.durable.sequence == sequence)
newer = connect()
say(superseded=refusal(lambda: session))
number -= 10
say(olderNumber=refusal(connect))
number += 20
session = newer
first_credit = session.credit
while session.spent < first_credit + 1048576:
    session.send_in_stream(numbered([(131072 * rng.randint(0, 7), rng.randbytes(65536)) for _ in range(7)]))
session.wait_for(sequence)
say(creditRose=session.credit > first_credit)
marker(session)
session.wait_for(sequence)

say(waiting=True)
while True:
    message = session.take()
    if isinstance(message, vra.CheckpointRequest):
        marker(session, message.request_id)
        break
    session.send(vra.Heartbeat(timestamp_micros=1))
session.wait_for(sequence)
session.send(vra.Goodbye())
say(counters=counter)
`
