"""The few HTTP/2 frames that no client library would send on purpose, written and read by hand."""

import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(pairs):
    """HPACK without compression: each a literal that is not indexed."""
    encoded = b""
    for name, value in pairs:
        encoded += b"\x00" + text(name) + text(value)
    return encoded


def text(value):
    length = len(value)
    if length < 127:
        return bytes([length]) + value.encode()
    prefix, rest = b"\x7f", length - 127
    while rest > 127:
        prefix += bytes([rest & 127 | 128])
        rest >>= 7
    return prefix + bytes([rest]) + value.encode()


def grpc_headers(method="ModelInfer"):
    return headers(
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/inference.GRPCInferenceService/{method}"),
            (":authority", "test"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
    )


def grpc_message(message):
    return b"\x00" + struct.pack(">I", len(message)) + message


class Connection:
    """An HTTP/2 connection whose frames are seen one by one."""

    def __init__(self, socket):
        self.socket = socket
        self._unread = b""
        self.send(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, data):
        self.socket.sendall(data)

    def receive(self):
        """The next frame (kind, flags, stream, payload); None once the server has closed."""
        head = self._exactly(9)
        if head is None:
            return None
        payload = self._exactly(int.from_bytes(head[:3], "big"))
        return head[3], head[4], int.from_bytes(head[5:9], "big"), payload

    def _exactly(self, count):
        while len(self._unread) < count:
            piece = self.socket.recv(65536)
            if not piece:
                return None
            self._unread += piece
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken
