#!/usr/bin/python3
"""Checks that no number of the contract in proto/ changes its meaning, against the committed descriptor set.

    scripts/check_proto.py              compares proto/ with proto/epic/v1/descriptor.binpb, and that file's own change
                                        with the commit before where git knows it; prints each broken promise, exits 1
    scripts/check_proto.py --update     writes the set anew; refuses where a promise is broken
    scripts/check_proto.py --self-test  breaks each rule once and shows that it is found

A field keeps its number, name, type, label and oneof; what is removed leaves its number and its name reserved; a
reserved number is not used again. Values of enums and rpcs likewise. New fields, values, messages and rpcs are fine.

Runs on Debian's own Python, whose package python3-protobuf it needs, and protoc.
"""
import pathlib
import subprocess
import sys
import tempfile

try:
    from google.protobuf import descriptor_pb2
except ImportError:
    sys.exit("error: Python's protobuf package is missing: install Debian's python3-protobuf and run this with /usr/bin/python3.")

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMITTED = "proto/epic/v1/descriptor.binpb"
Field = descriptor_pb2.FieldDescriptorProto


def compile_protos(folder):
    """The FileDescriptorSet of every .proto file under the folder, without comments and positions."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.proto"))
    if not names:
        sys.exit(f"error: no .proto file lies under {folder}.")
    with tempfile.TemporaryDirectory() as temporary:
        output = pathlib.Path(temporary, "set")
        run = subprocess.run(["protoc", f"--proto_path={folder}", f"--descriptor_set_out={output}", *names],
                             capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"error: protoc refused proto/: {run.stderr.strip()}")
        return descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())


class Contract:
    """A descriptor set as flat tables: what each number means, and what is reserved."""

    def __init__(self, descriptor_set):
        self.numbers = {}         # (kind, owner, number) -> (name, meaning in words)
        self.owners = {}          # full name of a message, enum or service -> its kind
        self.rpcs = {}            # (service, rpc) -> signature
        self.reserved = {}        # owner -> set of half-open number ranges
        self.reserved_names = {}  # owner -> set of names
        for file in descriptor_set.file:
            prefix = file.package
            for message in file.message_type:
                self._message(prefix, message)
            for enum in file.enum_type:
                self._enum(prefix, enum)
            for service in file.service:
                owner = f"{prefix}.{service.name}"
                self.owners[owner] = "service"
                for rpc in service.method:
                    sides = ("stream " * rpc.client_streaming + rpc.input_type, "stream " * rpc.server_streaming + rpc.output_type)
                    self.rpcs[owner, rpc.name] = f"({sides[0]}) returns ({sides[1]})"

    def _message(self, prefix, message):
        owner = f"{prefix}.{message.name}"
        self.owners[owner] = "message"
        self.reserved[owner] = {(r.start, r.end) for r in message.reserved_range}
        self.reserved_names[owner] = set(message.reserved_name)
        for field in message.field:
            label = Field.Label.Name(field.label)[6:].lower()
            kind = field.type_name or Field.Type.Name(field.type)[5:].lower()
            presence = " with presence" if field.proto3_optional else ""
            oneof = ""
            if field.HasField("oneof_index") and not field.proto3_optional:
                oneof = f" in oneof {message.oneof_decl[field.oneof_index].name}"
            self.numbers["field", owner, field.number] = (field.name, f"{label}{presence} {kind} {field.name}{oneof}")
        for nested in message.nested_type:
            self._message(owner, nested)
        for enum in message.enum_type:
            self._enum(owner, enum)

    def _enum(self, prefix, enum):
        owner = f"{prefix}.{enum.name}"
        self.owners[owner] = "enum"
        self.reserved[owner] = {(r.start, r.end + 1) for r in enum.reserved_range}  # an enum's range includes its end
        self.reserved_names[owner] = set(enum.reserved_name)
        for value in enum.value:
            self.numbers["value", owner, value.number] = (value.name, value.name)

    def reserves(self, owner, number):
        return any(start <= number < end for start, end in self.reserved.get(owner, ()))


def broken_promises(old, new):
    """What the new contract breaks of the old one, a list of sentences."""
    problems = []
    for owner, kind in old.owners.items():
        if new.owners.get(owner) != kind:
            problems.append(f"{kind} {owner} is gone; version 1 keeps what it has promised")
    for (kind, owner, number), (name, meaning) in old.numbers.items():
        if owner not in new.owners:
            continue
        now = new.numbers.get((kind, owner, number))
        if now is None:
            if not new.reserves(owner, number):
                problems.append(f"{owner}: {kind} {number} ({name}) was removed; write `reserved {number};`")
            if name not in new.reserved_names[owner]:
                problems.append(f"{owner}: {kind} {number} ({name}) was removed; write `reserved \"{name}\";`")
        elif now[1] != meaning:
            problems.append(f"{owner}: {kind} {number} was `{meaning}` and is now `{now[1]}`; give the new one a new number")
    for owner, ranges in old.reserved.items():
        for start, end in ranges:
            for (kind, other, number), (name, _) in new.numbers.items():
                if other == owner and start <= number < end:
                    problems.append(f"{owner}: {kind} {number} ({name}) uses a number that is reserved; give it a new one")
            if owner in new.owners and not new.reserves(owner, start):
                problems.append(f"{owner}: {start} is no longer reserved; reservations are for ever")
    for (service, rpc), signature in old.rpcs.items():
        now = new.rpcs.get((service, rpc))
        if service in new.owners and now != signature:
            problems.append(f"{service}.{rpc} was {signature} and is now {now or 'gone'}; add a new rpc beside it")
    return problems


def set_in_last_commit():
    """The committed descriptor set as the commit before has it, or None where git does not know."""
    run = subprocess.run(["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "show", f"HEAD~1:{COMMITTED}"],
                         capture_output=True)
    return descriptor_pb2.FileDescriptorSet.FromString(run.stdout) if run.returncode == 0 else None


def report(problems, what):
    for line in problems:
        print(line)
    if problems:
        sys.exit(f"error: {len(problems)} promises of {what} are broken.")


SELF_TEST = """syntax = "proto3";
package t;
message M {
  reserved 9;
  reserved "old";
  string name = 1;
  int32 size_bytes = 2;
  oneof which { string text = 3; bytes raw = 4; }
  optional int32 seed = 5;
}
enum E { E_NONE = 0; E_ONE = 1; }
service S { rpc Get(M) returns (M); }
"""


def self_test():
    broken = [
        ("a field changes its name", "string name = 1", "string label = 1"),
        ("a field changes its type", "int32 size_bytes = 2", "int64 size_bytes = 2"),
        ("a field changes its label", "string name = 1", "repeated string name = 1"),
        ("a field changes its number", "string name = 1", "string name = 7"),
        ("two fields change places", "string name = 1;\n  int32 size_bytes = 2", "int32 size_bytes = 1;\n  string name = 2"),
        ("a field is removed without reservation", "  string name = 1;\n", ""),
        ("a removed field's name is not reserved", "  string name = 1;\n", "  reserved 1;\n"),
        ("a field leaves its oneof", "oneof which { string text = 3; bytes raw = 4; }", "string text = 3; oneof which { bytes raw = 4; }"),
        ("a field loses its presence", "optional int32 seed", "int32 seed"),
        ("a reserved number is used", "reserved 9;", "int32 again = 9;"),
        ("a reservation is dropped", "  reserved 9;\n", ""),
        ("a value changes its number", "E_ONE = 1", "E_ONE = 2"),
        ("a value changes its name", "E_ONE = 1", "E_UN = 1"),
        ("an rpc begins to stream", "returns (M)", "returns (stream M)"),
        ("an rpc is removed", "rpc Get(M) returns (M);", ""),
        ("a message is removed", "message M", "message N"),
    ]
    permitted = [
        ("nothing changes", "package t;", "package t;"),
        ("a field is added", "string name = 1;", "string name = 1; string more = 10;"),
        ("a field is removed and reserved", "string name = 1;", 'reserved 1; reserved "name";'),
        ("a value is added", "E_ONE = 1;", "E_ONE = 1; E_TWO = 2;"),
        ("an rpc is added", "rpc Get(M)", "rpc Put(M) returns (M); rpc Get(M)"),
        ("a message is added", "enum E", "message N {} enum E"),
    ]

    def contract(text):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "t.proto").write_text(text.replace("(M)", "(N)") if "message N {\n" in text else text)
            return Contract(compile_protos(pathlib.Path(folder)))

    old = contract(SELF_TEST)
    for must_break, cases in ((True, broken), (False, permitted)):
        for what, before, after in cases:
            assert before in SELF_TEST, before
            problems = broken_promises(old, contract(SELF_TEST.replace(before, after)))
            if bool(problems) != must_break:
                sys.exit(f"self-test failed: {what}: {problems}, expected {'a problem' if must_break else 'none'}")
    print(f"contract: self-test passed: {len(broken)} broken promises found, {len(permitted)} rightful changes let through")


def main():
    arguments = sys.argv[1:]
    if arguments == ["--self-test"]:
        return self_test()
    if arguments not in ([], ["--update"]):
        sys.exit(f"error: unknown arguments {arguments}: expected nothing, --update or --self-test.")
    now = compile_protos(ROOT / "proto")
    path = ROOT / COMMITTED
    if path.exists():
        committed = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
        report(broken_promises(Contract(committed), Contract(now)), f"the contract in {COMMITTED}")
    if arguments == ["--update"]:
        path.write_bytes(now.SerializeToString(deterministic=True))
        print(f"contract: wrote {COMMITTED}")
        return
    if not path.exists():
        sys.exit(f"error: {COMMITTED} is missing: write it with scripts/check_proto.py --update and commit it.")
    if committed != now:
        sys.exit(f"error: proto/ has grown beyond {COMMITTED}: run scripts/check_proto.py --update and commit the file.")
    before = set_in_last_commit()
    if before is not None:
        report(broken_promises(Contract(before), Contract(now)), "the contract of the commit before")
    numbers = Contract(now).numbers
    print(f"contract: {len(numbers)} numbers and {len(Contract(now).rpcs)} rpcs, none changed its meaning")


if __name__ == "__main__":
    main()
