"""A gRPC client in the bytes of the wire, for what a well-behaved client library cannot be made to send.

A deadline that lies in the past when the server reads it, text that is not UTF-8, a message that is cut short: gRPC's
own clients stop all of them at the caller. This one speaks just enough HTTP/2 (RFC 9113), HPACK (RFC 7541) and
protobuf for one call on one connection. It is also a second opinion about the contract: field numbers are written out
where they are used.

    reply = call("127.0.0.1:7400", "epic.v1.DocumentService/GetDocument", message((2, "manual")))
    reply.code, reply.sentence, reply.messages

A call ends by the server or by `seconds`; nothing here waits without a limit.
"""

import socket
import struct
import time
import urllib.parse

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 3, 4, 5
ALREADY_EXISTS, FAILED_PRECONDITION, OUT_OF_RANGE, UNAVAILABLE = 6, 9, 11, 14

# Kinds and flags of HTTP/2 frames.
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK, PADDED, PRIORITY = 0x1, 0x4, 0x1, 0x8, 0x20
FRAME_BYTES_MAX = 16384
OUR_WINDOW_BYTES = 1 << 30


# --- protobuf ---------------------------------------------------------------------------------------------------------


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(*fields):
    """Bytes of a message. A field is (number, value): int and bool as varint, float as 32 bits, str, bytes and nested
    messages (bytes) by length."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return bytes(out)


def fields(data):
    """[(number, value)] of a message: ints of varints and fixed fields, bytes of everything else."""
    found, at = [], 0

    def read_varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = read_varint()
        kind = tag & 7
        if kind == 0:
            found.append((tag >> 3, read_varint()))
            continue
        size = {1: 8, 5: 4}.get(kind) or read_varint()
        value = data[at : at + size]
        at += size
        found.append((tag >> 3, int.from_bytes(value, "little") if kind in (1, 5) else value))
    return found


def first(data, number, default=None):
    """The first field of that number."""
    return next((value for found, value in fields(data) if found == number), default)


def every(data, number):
    return [value for found, value in fields(data) if found == number]


# --- HPACK ------------------------------------------------------------------------------------------------------------


def encode_headers(headers):
    """Each header as a literal that is not indexed, with plain strings: valid, and without state."""
    out = bytearray()
    for name, value in headers:
        out.append(0)
        for text in (name.encode(), value.encode()):
            out += _integer(len(text), 7) + text
    return bytes(out)


def _integer(value, prefix_bits):
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([value])
    out, value = bytearray([limit]), value - limit
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class HeaderDecoder:
    """Reads header blocks. Entries of the static table are not needed by name and come out as "static-N"."""

    STATIC_ENTRIES = 61

    def __init__(self):
        self._dynamic = []

    def decode(self, block):
        headers, self._block, self._at = {}, block, 0
        while self._at < len(block):
            byte = block[self._at]
            if byte & 0x80:
                name, value = self._entry(self._read_integer(7))
            elif byte & 0xE0 == 0x20:
                self._read_integer(5)  # a new size of the dynamic table
                continue
            else:
                index = self._read_integer(6 if byte & 0x40 else 4)
                name = self._entry(index)[0] if index else self._read_string()
                value = self._read_string()
                if byte & 0x40:
                    self._dynamic.insert(0, (name, value))
            headers[name] = value
        return headers

    def _entry(self, index):
        if index <= self.STATIC_ENTRIES:
            return f"static-{index}", ""
        return self._dynamic[index - self.STATIC_ENTRIES - 1]

    def _read_integer(self, prefix_bits):
        limit = (1 << prefix_bits) - 1
        value = self._block[self._at] & limit
        self._at += 1
        shift = 0
        while value >= limit:
            byte = self._block[self._at]
            self._at += 1
            value += (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        return value

    def _read_string(self):
        if self._block[self._at] & 0x80:
            raise WireError("the server sent a Huffman-coded header, which this client does not read")
        size = self._read_integer(7)
        text = self._block[self._at : self._at + size]
        self._at += size
        return text.decode("latin-1")


# --- HTTP/2 and gRPC --------------------------------------------------------------------------------------------------


class WireError(Exception):
    """The connection ended, or the server broke the protocol, before there was a status."""


class Reply:
    def __init__(self, code, sentence, messages):
        self.code = code
        self.sentence = sentence
        self.messages = messages

    @property
    def message(self):
        """The only message of an answer that has one."""
        if len(self.messages) != 1:
            raise WireError(f"expected one message, got {len(self.messages)} with status {self.code}: {self.sentence}")
        return self.messages[0]

    def __repr__(self):
        return f"Reply(code={self.code}, sentence={self.sentence!r}, messages={len(self.messages)})"


def call(address, method, body=b"", timeout_header=None, seconds=60, on_message=None, prefixed=True, hold_body=False):
    """One call with one request message.

    `timeout_header` is the text of grpc-timeout, a number with a unit; "0m" is past by the time that anybody can
    look. `on_message` sees each message as it comes; where it returns False, the connection is cut without a word, as
    a client that dies does, and None is returned. With `prefixed` False `body` goes out without gRPC's own prefix of
    flag and length; with `hold_body` it never goes out at all."""
    if prefixed:
        body = b"\0" + struct.pack(">I", len(body)) + body
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/" + method), (":authority", address)]
    headers += [("content-type", "application/grpc"), ("te", "trailers")]
    if timeout_header is not None:
        headers.append(("grpc-timeout", timeout_header))
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=min(seconds, 10)) as connection:
        return _Call(connection, time.monotonic() + seconds, on_message).run(headers, body, hold_body)


class _Call:
    def __init__(self, connection, deadline, on_message):
        self._connection = connection
        self._deadline = deadline
        self._on_message = on_message
        self._decoder = HeaderDecoder()
        self._received = b""
        self._connection_window = 65535
        self._stream_window = 65535
        self._header_block = b""
        self._headers = {}
        self._data = b""
        self._messages = []
        self._stopped = False
        self._reset = None
        self._body = b""
        self._request_was_sent = False

    def run(self, headers, body, hold_body):
        settings = struct.pack(">HI", 4, OUR_WINDOW_BYTES)  # SETTINGS_INITIAL_WINDOW_SIZE
        self._connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(SETTINGS, 0, 0, settings)
            + _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", OUR_WINDOW_BYTES))
            + _frame(HEADERS, END_HEADERS, 1, encode_headers(headers))
        )
        self._body = body
        while True:
            if not hold_body:
                self._send_what_fits()
            finished = self._read_frame()
            if self._stopped:
                return None
            if finished:
                return self._reply()

    def _send_what_fits(self):
        """As much of the request as the server has room for now."""
        while not self._request_was_sent:
            size = min(len(self._body), FRAME_BYTES_MAX, self._connection_window, self._stream_window)
            if size <= 0 and self._body:
                return
            piece, self._body = self._body[:size], self._body[size:]
            self._connection_window -= size
            self._stream_window -= size
            self._request_was_sent = not self._body
            self._send(_frame(DATA, END_STREAM if self._request_was_sent else 0, 1, piece))

    def _reply(self):
        if "grpc-status" not in self._headers:
            raise WireError(f"the stream ended without a status (reset code {self._reset}, headers {self._headers})")
        sentence = urllib.parse.unquote(self._headers.get("grpc-message", ""))
        return Reply(int(self._headers["grpc-status"]), sentence, self._messages)

    def _read(self, size):
        while len(self._received) < size:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise WireError(f"no end of the call in time; messages so far: {len(self._messages)}")
            self._connection.settimeout(left)
            try:
                piece = self._connection.recv(1 << 16)
            except socket.timeout:
                continue
            except ConnectionError as error:
                raise WireError(f"the connection broke before the call's status: {error}") from error
            if not piece:
                raise WireError("the connection ended before the call's status")
            self._received += piece
        out, self._received = self._received[:size], self._received[size:]
        return out

    def _read_frame(self):
        """Takes one frame; whether it was the stream's last."""
        head = self._read(9)
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:9], "big") & 0x7FFFFFFF
        payload = self._read(size)
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at : at + 6])
                if name == 4:
                    self._stream_window += value - 65535
            self._send(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._send(_frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            grown = int.from_bytes(payload, "big")
            if stream == 0:
                self._connection_window += grown
            else:
                self._stream_window += grown
        elif kind == GOAWAY and int.from_bytes(payload[4:8], "big") != 0:
            raise WireError(f"the server went away: {payload[8:]!r}")
        elif stream == 1 and kind in (HEADERS, CONTINUATION):
            self._header_block += _without_padding(kind, flags, payload)
            if flags & END_HEADERS:
                self._headers.update(self._decoder.decode(self._header_block))
                self._header_block = b""
            return bool(flags & END_STREAM)
        elif stream == 1 and kind == DATA:
            self._take_data(_without_padding(kind, flags, payload))
            return bool(flags & END_STREAM)
        elif stream == 1 and kind == RST_STREAM:
            self._reset = int.from_bytes(payload, "big")
            return True
        return False

    def _send(self, frame):
        try:
            self._connection.sendall(frame)
        except (BrokenPipeError, ConnectionResetError):
            pass  # reading says what became of the call

    def _take_data(self, data):
        self._data += data
        while len(self._data) >= 5:
            size = struct.unpack(">I", self._data[1:5])[0]
            if len(self._data) < 5 + size:
                return
            self._messages.append(self._data[5 : 5 + size])
            self._data = self._data[5 + size :]
            if self._on_message is not None and self._on_message(self._messages[-1]) is False:
                self._stopped = True
                return


def _frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _without_padding(kind, flags, payload):
    padding = payload[0] if flags & PADDED else 0
    start = (1 if flags & PADDED else 0) + (5 if kind == HEADERS and flags & PRIORITY else 0)
    return payload[start : len(payload) - padding]
