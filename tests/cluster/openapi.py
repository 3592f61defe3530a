# SPDX-License-Identifier: GPL-2.0
"""Whether answers are what Documentation/openapi.json says: the parts of JSON Schema that it uses."""

TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def problems(document: dict, schema: dict, value, where: str = "answer") -> list[str]:
    """What is wrong with a value; every field must be described, and every described one be there."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    kind = TYPES[schema["type"]]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return [f"{where}: {value!r} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: {value!r} is none of {schema['enum']}"]
    found = []
    if kind is dict and "properties" in schema:
        found += [f"{where}: field {name} is not described" for name in value.keys() - schema["properties"].keys()]
        for name, inner in schema["properties"].items():
            if name in value:
                found += problems(document, inner, value[name], f"{where}.{name}")
    if kind is list:
        for item in value:
            found += problems(document, schema["items"], item, f"{where}[]")
    return found


def answer_schema(document: dict, path: str, method: str = "get") -> dict:
    return document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]
