/**
 * A client in Python, written from proto/README.md alone over the code that protoc generates. It connects to the port in its
 * first argument, writes ten batches and a checkpoint marker, waits until all are durable, reconnects, resends the last batch and
 * goes on from there. It prints one JSON object a line.
 */
export const foreignClient = `
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
    def __init__(self, port, number, resumable_from, last_numbered):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        hello = vra.Hello(protocol_version_min=1, protocol_version_max=1, vpg="orders", agent="orders-host",
                          session_number=number, software="a client in another language",
                          volumes=[vra.HelloVolume(name="root", size_bytes=1048576)],
                          resumable_from=resumable_from, last_numbered=last_numbered)
        self.send(hello)
        self.welcome = self.receive()
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
