"""Reads a protobuf message from standard input with Google's own code and prints it as JSON.

Arguments: a .proto file, and the full name of the message in it. References to symbols are replaced by the symbols.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile

from google.protobuf.json_format import MessageToDict

proto, name = sys.argv[1:]
directory, file = os.path.split(proto)
with tempfile.TemporaryDirectory() as generated:
    # protoc's libraries are not for this interpreter.
    environment = dict(os.environ, LD_LIBRARY_PATH=os.environ.get("OUTHAUL_TEST_LIBRARIES", ""))
    subprocess.run(["protoc", f"-I{directory}", f"--python_out={generated}", file], check=True, env=environment)
    sys.path.insert(0, generated)
    module = importlib.import_module(file.replace(".proto", "_pb2"))

message = getattr(module, name.rsplit(".", 1)[1]).FromString(sys.stdin.buffer.read())
decoded = MessageToDict(message, preserving_proto_field_name=True)
symbols = decoded.pop("symbols", None)


def resolve(value):
    if isinstance(value, list):
        return [resolve(one) for one in value]
    if not isinstance(value, dict):
        return value
    resolved = {}
    for key, one in value.items():
        if key == "labels_refs":
            resolved["labels"] = [symbols[reference] for reference in one]
        elif key.endswith("_ref"):
            resolved[key.removesuffix("_ref")] = symbols[one]
        else:
            resolved[key] = resolve(one)
    return resolved


if symbols is not None:
    assert symbols[0] == "" and len(set(symbols)) == len(symbols), symbols
print(json.dumps(resolve(decoded)))
