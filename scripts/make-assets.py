#!/usr/bin/env python3
"""Makes the binary part of examples/assets: paintings, meshes, scenes and a bell.

Python's standard library only, and no randomness but a seeded hash, so a second run on the same Python writes
the same bytes. (The compressed size of a PNG may differ with another zlib; its pixels do not.)
The text files of the tree (page, shaders, tables, the XML scene) are written by hand and stay as they are.

Usage: scripts/make-assets.py [FOLDER]      (default: examples/assets beside this script's folder)
"""

import json
import math
import struct
import sys
import zlib
from array import array
from pathlib import Path

# ---------------------------------------------------------------------------------------------------------
# Noise


def hash01(x, y, seed):
    """A number within 0 to 1 that depends on nothing but the arguments."""
    n = (x * 374761393 + y * 668265263 + seed * 2147483647 + 0x9E3779B9) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFFFF) / 0xFFFFFF


def wave_noise(x, seed, octaves=4):
    """Smooth noise along a line, within about -1 to 1: the outline of hills."""
    total, weight = 0.0, 1.0
    for octave in range(octaves):
        at = x * (2**octave)
        left = math.floor(at)
        part = at - left
        part = part * part * (3 - 2 * part)
        a, b = hash01(left, octave, seed), hash01(left + 1, octave, seed)
        total += weight * ((a + (b - a) * part) * 2 - 1)
        weight *= 0.5
    return total / 1.9


# ---------------------------------------------------------------------------------------------------------
# Pictures


def colour(text):
    return tuple(int(text[i : i + 2], 16) for i in (0, 2, 4))


def mix(a, b, t):
    t = min(1.0, max(0.0, t))
    return tuple(a[i] + (b[i] - a[i]) * t for i in range(3))


def ramp(stops, t, steps):
    """A ramp through `stops`, cut into `steps` flat tones, as a scene painter lays in a sky."""
    t = min(1.0, max(0.0, math.floor(t * steps) / (steps - 1)))
    at = t * (len(stops) - 1)
    low = min(int(at), len(stops) - 2)
    return mix(stops[low], stops[low + 1], at - low)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, shade):
    """An 8-bit RGB PNG of `shade(x, y) -> (r, g, b)`, sampled four times per pixel."""
    rows = []
    for y in range(height):
        row = bytearray()
        for x in range(width):
            r = g = b = 0.0
            for dx, dy in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)):
                sample = shade(x + dx, y + dy)
                r, g, b = r + sample[0], g + sample[1], b + sample[2]
            row += bytes((round(r / 4), round(g / 4), round(b / 4)))
        rows.append(bytes(row))

    def filtered(kind):
        above = bytes(width * 3)
        out = bytearray()
        for row in rows:
            out.append(kind)
            if kind == 0:
                out += row
            elif kind == 1:
                out += bytes((row[i] - (row[i - 3] if i >= 3 else 0)) & 255 for i in range(len(row)))
            else:
                out += bytes((row[i] - above[i]) & 255 for i in range(len(row)))
            above = row
        return zlib.compress(bytes(out), 9)

    data = min((filtered(kind) for kind in (0, 1, 2)), key=len)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    text = b"Software\0Flyloft scripts/make-assets.py"
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, body) for kind, body in ((b"IHDR", head), (b"sRGB", b"\0"), (b"tEXt", text), (b"IDAT", data), (b"IEND", b""))
    )


def harbour_night(width, height):
    """A moonlit harbour: sky in flat tones, a headland with a lighthouse, a boat, the moon's path on the water."""
    sky = [colour(c) for c in ("0f1430", "1a2350", "27407a", "3f6d98", "7fa8ab", "e3c9a0")]
    sea = [colour(c) for c in ("4f7f96", "2b5379", "17305a", "0c1a38")]
    moon_x, moon_y, moon_r = 0.70, 0.26, 0.062
    horizon = 0.64
    aspect = width / height
    stars = []
    for i in range(90):
        stars.append((hash01(i, 1, 5) * aspect, hash01(i, 2, 5) ** 1.4 * 0.5, 0.0012 + 0.0022 * hash01(i, 3, 5) ** 3))

    def far(u):
        return horizon - 0.035 - 0.03 * wave_noise(u * 3 + 9, 11) - 0.02 * math.exp(-((u - 1.2) ** 2) * 9)

    def near(u):
        rise = 0.17 * math.exp(-((u - 0.12) ** 2) * 10)
        return horizon + 0.03 - rise - 0.014 * wave_noise(u * 9, 3) + 0.45 * max(0.0, u - 0.42)

    def shade(px, py):
        u, v = px / height, py / height
        mx, my = u - moon_x * aspect, v - moon_y
        distance = math.hypot(mx, my)
        if v < horizon:
            bend = 0.012 * math.sin(u * 5 + v * 9) + 0.007 * math.sin(u * 13 - v * 21)
            tone = ramp(sky, (v + bend) / horizon, 13)
            for ring in (0.30, 0.21, 0.135):
                if distance < ring + 0.004 * math.sin(math.atan2(my, mx) * 9):
                    tone = mix(tone, colour("f4e3b5"), 0.085)
            if distance < moon_r:
                dent = math.hypot(mx - 0.016, my + 0.012) < 0.017 or math.hypot(mx + 0.022, my - 0.02) < 0.011
                tone = colour("e9d7a6") if dent else colour("f8edcb")
            elif v < 0.5:
                for sx, sy, sr in stars:
                    if abs(u - sx) < sr and abs(v - sy) < sr:
                        tone = colour("f2ecd5")
                        break
            cloud = 0.43 + 0.012 * math.sin(u * 7 + 1)
            thick = 0.011 * max(0.0, math.sin(u * 3.1 - 0.6)) + 0.006 * max(0.0, math.sin(u * 11))
            if abs(v - cloud) < thick or abs(v - cloud - 0.045) < thick * 0.6:
                tone = mix(tone, colour("1c2c5c"), 0.55)
            if v > far(u):
                tone = colour("24406a")
        else:
            depth = (v - horizon) / (1 - horizon)
            tone = ramp(sea, depth + 0.05 * math.sin(u * 9 + v * 40) * depth, 9)
            line = (v - horizon) * 46 / (0.35 + depth)
            row = math.floor(line)
            off = abs(line - row - 0.5) * 2
            reach = 0.03 + 0.12 * depth + 0.045 * (hash01(row, 7, 2) - 0.3)
            path = (mx - 0.05 * (hash01(row, 8, 2) - 0.5)) / reach
            tile = math.floor(u * 4)
            glint = (u * 4 - tile - 0.3 - 0.4 * hash01(row, tile, 4)) / 0.28
            if abs(path) < 1 and off < 0.8 * (1 - path * path):
                tone = mix(tone, colour("f6e6b8"), 0.85 - 0.4 * depth)
            elif hash01(row, tile, 9) > 0.55 and abs(glint) < 1 and off < 0.35 * (1 - glint * glint):
                tone = mix(tone, colour("7fb0bd"), 0.4)
        if v > near(u) and v < horizon + 0.05 + 0.02 * math.sin(u * 6) and u < 0.62:
            tone = colour("0b1226")
        # The lighthouse, its lamp and its beam.
        lx = u - 0.15
        if 0.215 < v < 0.52:
            half = 0.013 + 0.016 * (v - 0.215) / 0.3
            if v > 0.262 and abs(lx) < half:
                band = math.floor((v - 0.262) / 0.052) % 2
                tone = colour("d9cdb4") if band == 0 else colour("9c3b32")
                if lx > half * 0.35:
                    tone = mix(tone, colour("0b1226"), 0.45)
            elif 0.235 < v <= 0.262 and abs(lx) < 0.014:
                tone = colour("ffe9a8")
            elif v <= 0.235 and abs(lx) < 0.02 * (v - 0.215) / 0.02:
                tone = colour("7d2c28")
            if 0.258 < v < 0.266 and abs(lx) < 0.022:
                tone = colour("0b1226")
        if lx > 0.014 and abs((v - 0.2485) + lx * 0.05) < 0.006 + lx * 0.055 and v < horizon:
            tone = mix(tone, colour("ffe9a8"), max(0.0, 0.34 - 0.25 * lx))
        # The boat.
        bx, by = u - 0.98, v - 0.735
        if 0 < by < 0.028 and abs(bx) < 0.075 - by * 0.9:
            tone = colour("10182f")
        if -0.19 < by < -0.008 and -0.001 < bx < 0.075 * (by + 0.19) / 0.18:
            tone = colour("e8d9b9") if bx > 0.012 else colour("cbb994")
        if -0.16 < by < -0.012 and -0.052 * (by + 0.16) / 0.15 < bx < -0.007:
            tone = colour("b4503e")
        if -0.20 < by <= 0 and abs(bx + 0.004) < 0.0022:
            tone = colour("10182f")
        return tone

    return png(width, height, shade)


def hills_dawn(width, height):
    """Hills at dawn: a low sun, five ranges that pale into the distance, poplars along a road."""
    sky = [colour(c) for c in ("3d5a80", "7f8fa9", "c9a9a6", "f0b894", "f8d49b", "fdeebd")]
    ranges = [("d9a48f", 0.56, 0.10, 3.1, 3), ("b3808a", 0.63, 0.10, 2.6, 8), ("7d6482", 0.71, 0.11, 1.9, 15),
              ("4d4d6b", 0.79, 0.10, 1.5, 21), ("2c3a4a", 0.88, 0.07, 1.2, 34)]
    aspect = width / height
    sun_x, sun_y = 0.36 * aspect, 0.47
    trees = [(1.08 + 0.072 * i, 0.80 + 0.006 * i * math.sin(i * 2.1), 0.15 + 0.035 * hash01(i, 1, 6)) for i in range(9)]

    def shade(px, py):
        u, v = px / height, py / height
        bend = 0.015 * math.sin(u * 4 + 1) + 0.008 * math.sin(u * 11 + v * 17)
        tone = ramp(sky, (v + bend) / 0.62, 12)
        distance = math.hypot(u - sun_x, v - sun_y)
        ray = math.atan2(v - sun_y, u - sun_x)
        if distance < 0.105:
            tone = colour("fff6d8")
        elif distance < 0.15:
            tone = mix(tone, colour("fff2c4"), 0.55)
        elif math.sin(ray * 14) > 0.35 and distance < 0.9:
            tone = mix(tone, colour("fff2c4"), 0.20 * (1 - distance / 0.9))
        for name, base, height_of, stretch, seed in ranges:
            top = base - height_of * (0.3 + wave_noise(u * stretch + seed, seed, 3))
            if v > top:
                tone = colour(name)
                if v < top + 0.008:
                    tone = mix(tone, colour("fbe0b0"), 0.38)
                elif math.sin((v - top) * 95 + 3 * math.sin(u * 3 + seed)) > 0.8:
                    tone = mix(tone, colour("1d2430"), 0.10)
        road = 0.62 + 0.34 * (v - 0.8) * 2.2 + 0.05 * math.sin(v * 23)
        if v > 0.845 and abs(u - road) < 0.010 + 0.16 * (v - 0.845):
            tone = colour("c9a583")
        for x, foot, tall in trees:
            up = (foot + 0.07 - v) / tall
            if 0 < up < 1:
                half = 0.026 * math.sin(math.pi * up**0.75) ** 0.8 * (1 + 0.16 * math.sin(v * 160 + x * 40))
                if abs(u - x) < half:
                    tone = colour("1c2a2e") if u > x - half * 0.3 else colour("3c4a44")
            if -0.12 < up <= 0.02 and abs(u - x) < 0.0035:
                tone = colour("1a1c20")
        return tone

    return png(width, height, shade)


def boards(size):
    """Stage boards that tile: eight planks of worn oak with grain and nails."""
    planks = 8
    plank_px = size / planks

    def shade(px, py):
        plank = int(px // plank_px) % planks
        across = (px % plank_px) / plank_px
        start = hash01(plank, 0, 41) * size
        along = (py + start) % size
        base = mix(colour("5b3f2a"), colour("7b5838"), hash01(plank, 1, 41))
        grain = math.sin(across * 17 + 2.2 * math.sin(along / size * 2 * math.pi * 2 + plank) + plank * 1.7)
        tone = mix(base, colour("3a2819"), 0.22 if grain > 0.45 else 0.0)
        if grain < -0.8:
            tone = mix(tone, colour("9a7550"), 0.25)
        if across < 0.035 or across > 0.965 or along < 1.6:
            tone = colour("1d130c")
        for at in (8, size - 8):
            for side in (0.22, 0.78):
                if math.hypot(along - at, (across - side) * plank_px) < 1.5:
                    tone = colour("15100c")
        return tone

    return png(size, size, shade)


def canvas(size):
    """Sailcloth that tiles, for the sandbags."""

    def shade(px, py):
        thread = 4.0
        over = (int(px // thread) + int(py // thread)) % 2
        dx, dy = px % thread / thread - 0.5, py % thread / thread - 0.5
        bulge = 1 - (dy * dy if over else dx * dx) * 2.2
        tone = mix(colour("6d5f45"), colour("b9a67c"), bulge)
        return mix(tone, colour("4f4433"), 0.25 * hash01(int(px // thread), int(py // thread), 3))

    return png(size, size, shade)


# ---------------------------------------------------------------------------------------------------------
# Meshes: lists of positions, normals, uvs and triangles, in metres, Y up, counter-clockwise fronts


class Mesh:
    def __init__(self):
        self.positions, self.normals, self.uvs, self.indices = [], [], [], []

    def vertex(self, position, normal, uv):
        length = math.sqrt(sum(c * c for c in normal)) or 1.0
        self.positions.append(position)
        self.normals.append(tuple(c / length for c in normal))
        self.uvs.append(uv)
        return len(self.positions) - 1

    def triangle(self, a, b, c):
        if len({self.positions[i] for i in (a, b, c)}) == 3:
            self.indices += (a, b, c)

    def add(self, other, offset=(0, 0, 0)):
        first = len(self.positions)
        self.positions += [tuple(p[i] + offset[i] for i in range(3)) for p in other.positions]
        self.normals += other.normals
        self.uvs += other.uvs
        self.indices += [first + i for i in other.indices]
        return self


def grid(columns, rows, point):
    """A sheet of quads; `point(s, t) -> position` with s to the right and t downward, both within 0 to 1."""
    mesh = Mesh()
    step = 1e-4
    for j in range(rows + 1):
        for i in range(columns + 1):
            s, t = i / columns, j / rows
            p = point(s, t)
            ps, pt = point(s + step, t), point(s, t + step)
            along = [ps[k] - p[k] for k in range(3)]
            down = [pt[k] - p[k] for k in range(3)]
            normal = (
                down[1] * along[2] - down[2] * along[1],
                down[2] * along[0] - down[0] * along[2],
                down[0] * along[1] - down[1] * along[0],
            )
            mesh.vertex(p, normal, (s, t))
    for j in range(rows):
        for i in range(columns):
            a = j * (columns + 1) + i
            b, c, d = a + 1, a + columns + 1, a + columns + 2
            mesh.triangle(a, c, b)
            mesh.triangle(b, c, d)
    return mesh


def lathe(profile, segments=20):
    """Turns a profile of (radius, height), from the top down, about the Y axis."""
    mesh = Mesh()
    for j, (radius, height) in enumerate(profile):
        above = profile[max(j - 1, 0)]
        below = profile[min(j + 1, len(profile) - 1)]
        slope_r, slope_y = below[0] - above[0], below[1] - above[1]
        for i in range(segments + 1):
            angle = 2 * math.pi * i / segments
            cos, sin = math.cos(angle), math.sin(angle)
            if i == segments:
                cos, sin = 1.0, 0.0
            normal = (-slope_y * cos, slope_r, -slope_y * sin)
            mesh.vertex((radius * cos, height, radius * sin), normal, (i / segments, j / (len(profile) - 1)))
    for j in range(len(profile) - 1):
        for i in range(segments):
            a = j * (segments + 1) + i
            b, c, d = a + 1, a + segments + 1, a + segments + 2
            mesh.triangle(a, b, c)
            mesh.triangle(b, d, c)
    return mesh


def box(width, height, depth):
    """A box about the origin, each face with its own normals."""
    mesh = Mesh()
    x, y, z = width / 2, height / 2, depth / 2
    faces = [
        ((0, 0, 1), [(-x, y, z), (x, y, z), (-x, -y, z), (x, -y, z)]),
        ((0, 0, -1), [(x, y, -z), (-x, y, -z), (x, -y, -z), (-x, -y, -z)]),
        ((1, 0, 0), [(x, y, z), (x, y, -z), (x, -y, z), (x, -y, -z)]),
        ((-1, 0, 0), [(-x, y, -z), (-x, y, z), (-x, -y, -z), (-x, -y, z)]),
        ((0, 1, 0), [(-x, y, -z), (x, y, -z), (-x, y, z), (x, y, z)]),
        ((0, -1, 0), [(-x, -y, z), (x, -y, z), (-x, -y, -z), (x, -y, -z)]),
    ]
    for normal, corners in faces:
        a, b, c, d = (mesh.vertex(p, normal, uv) for p, uv in zip(corners, ((0, 0), (1, 0), (0, 1), (1, 1))))
        mesh.triangle(a, c, b)
        mesh.triangle(b, c, d)
    return mesh


def drape(width, height, folds, depth):
    """A curtain in soft folds that gathers a little toward the hem."""

    def point(s, t):
        fold = math.sin(s * folds * 2 * math.pi) + 0.3 * math.sin(s * folds * 4 * math.pi + 1)
        squeeze = 1 - 0.06 * t
        return ((s - 0.5) * width * squeeze, height * (1 - t), depth * fold * (0.55 + 0.45 * t))

    return grid(folds * 8, 6, point)


def swag(width, drop, depth):
    """The border above the stage: a pelmet whose hem hangs in five arcs."""

    def point(s, t):
        hem = 0.62 + 0.38 * abs(math.sin(s * 5 * math.pi))
        return ((s - 0.5) * width, -drop * hem * t, depth * math.sin(s * 44) * t)

    return grid(80, 4, point)


def batten(length, radius):
    """A pipe that scenery hangs from, lying along X."""
    upright = lathe([(0.0, length / 2), (radius, length / 2), (radius, -length / 2), (0.0, -length / 2)], 10)
    mesh = Mesh()
    for p, n, uv in zip(upright.positions, upright.normals, upright.uvs):
        mesh.vertex((p[1], -p[0], p[2]), (n[1], -n[0], n[2]), uv)
    mesh.indices = list(upright.indices)
    return mesh


def sandbag():
    """A counterweight: a stuffed bag tied at the neck."""
    body = [(0.0, 0.62), (0.05, 0.61), (0.055, 0.55), (0.03, 0.50), (0.09, 0.46), (0.17, 0.38), (0.215, 0.26),
            (0.22, 0.16), (0.19, 0.06), (0.12, 0.01), (0.0, 0.0)]
    return lathe(body, 18)


# ---------------------------------------------------------------------------------------------------------
# glTF 2.0


class Gltf:
    """Collects meshes, materials and nodes; every bufferView starts at a multiple of four."""

    def __init__(self, about):
        self.blob = bytearray()
        self.json = {"asset": {"version": "2.0", "generator": "Flyloft scripts/make-assets.py", "copyright": about}}

    def put(self, key, value):
        self.json.setdefault(key, []).append(value)
        return len(self.json[key]) - 1

    def view(self, data, target):
        self.blob += bytes(-len(self.blob) % 4)
        at = len(self.blob)
        self.blob += data
        return self.put("bufferViews", {"buffer": 0, "byteOffset": at, "byteLength": len(data), "target": target})

    def floats(self, rows, kind, bounds=False):
        data = array("f", [c for row in rows for c in row])
        if sys.byteorder == "big":
            data.byteswap()
        accessor = {"bufferView": self.view(data.tobytes(), 34962), "componentType": 5126, "count": len(rows), "type": kind}
        if bounds:
            width = len(rows[0])
            # The bounds must be those of the stored 32-bit numbers.
            stored = array("f", data.tobytes()) if sys.byteorder == "little" else array("f", [c for row in rows for c in row])
            columns = [stored[i::width] for i in range(width)]
            accessor["min"], accessor["max"] = [min(c) for c in columns], [max(c) for c in columns]
        return self.put("accessors", accessor)

    def mesh(self, name, mesh, material):
        assert len(mesh.positions) < 65535, name
        data = struct.pack(f"<{len(mesh.indices)}H", *mesh.indices)
        primitive = {
            "attributes": {
                "POSITION": self.floats(mesh.positions, "VEC3", True),
                "NORMAL": self.floats(mesh.normals, "VEC3"),
                "TEXCOORD_0": self.floats(mesh.uvs, "VEC2"),
            },
            "indices": self.put("accessors", {
                "bufferView": self.view(data, 34963), "componentType": 5123, "count": len(mesh.indices), "type": "SCALAR"
            }),
            "material": material,
        }
        return self.put("meshes", {"name": name, "primitives": [primitive]})

    def texture(self, uri, repeat):
        wrap = 10497 if repeat else 33071
        sampler = self.put("samplers", {"magFilter": 9729, "minFilter": 9987, "wrapS": wrap, "wrapT": wrap})
        return self.put("textures", {"sampler": sampler, "source": self.put("images", {"uri": uri})})

    def material(self, name, rgb=None, texture=None, roughness=0.9, metallic=0.0, two_sided=False, emissive=None):
        surface = {"roughnessFactor": roughness, "metallicFactor": metallic}
        if rgb:
            surface["baseColorFactor"] = [*rgb, 1.0]
        if texture is not None:
            surface["baseColorTexture"] = {"index": texture}
        value = {"name": name, "pbrMetallicRoughness": surface}
        if two_sided:
            value["doubleSided"] = True
        if emissive:
            value["emissiveFactor"] = list(emissive)
        return self.put("materials", value)

    def node(self, name, mesh=None, at=None, children=None, **more):
        value = {"name": name, **more}
        if mesh is not None:
            value["mesh"] = mesh
        if at:
            value["translation"] = list(at)
        if children:
            value["children"] = children
        return self.put("nodes", value)

    def finish(self, root, uri=None):
        self.json["scene"] = 0
        self.json["scenes"] = [{"name": self.json["nodes"][root]["name"], "nodes": [root]}]
        buffer = {"byteLength": len(self.blob)}
        if uri:
            buffer["uri"] = uri
        self.json["buffers"] = [buffer]
        check_gltf(self.json, bytes(self.blob))

    def glb(self):
        text = json.dumps(self.json, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        blob = bytes(self.blob) + bytes(-len(self.blob) % 4)
        body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
        return struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body


def check_gltf(document, blob):
    """What the specification asks of buffers, accessors and references; a scene that breaks it is not written."""
    views = document["bufferViews"]
    for view in views:
        assert view["byteOffset"] + view["byteLength"] <= len(blob)
    for accessor in document["accessors"]:
        view = views[accessor["bufferView"]]
        size = {5126: 4, 5123: 2}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[accessor["type"]]
        assert view["byteOffset"] % size == 0 and accessor["count"] * size * width == view["byteLength"]
    for mesh in document["meshes"]:
        for primitive in mesh["primitives"]:
            counts = {document["accessors"][i]["count"] for i in primitive["attributes"].values()}
            assert len(counts) == 1
            indices = document["accessors"][primitive["indices"]]
            at = views[indices["bufferView"]]["byteOffset"]
            numbers = struct.unpack_from(f"<{indices['count']}H", blob, at)
            assert indices["count"] % 3 == 0 and max(numbers) < counts.pop()
            assert "min" in document["accessors"][primitive["attributes"]["POSITION"]]
            normals = document["accessors"][primitive["attributes"]["NORMAL"]]
            at = views[normals["bufferView"]]["byteOffset"]
            for i in range(normals["count"]):
                x, y, z = struct.unpack_from("<3f", blob, at + 12 * i)
                assert abs(x * x + y * y + z * z - 1) < 1e-4, mesh["name"]
    seen = [child for node in document["nodes"] for child in node.get("children", [])]
    assert len(seen) == len(set(seen))


def stage():
    """A small stage: boards, a painted backdrop, legs, a border, battens with sandbags, a proscenium."""
    g = Gltf("Made for Flyloft; MIT OR Apache-2.0")
    backdrop = g.material("painted backdrop", texture=g.texture("../textures/harbour-night.png", False), two_sided=True)
    oak = g.material("oak boards", texture=g.texture("../textures/boards.png", True), roughness=0.75)
    velvet = g.material("red velvet", rgb=(0.33, 0.02, 0.035), roughness=1.0, two_sided=True)
    steel = g.material("steel pipe", rgb=(0.32, 0.33, 0.35), roughness=0.4, metallic=0.9)
    sailcloth = g.material("sailcloth", rgb=(0.42, 0.36, 0.25), roughness=1.0)
    gilt = g.material("gilt plaster", rgb=(0.72, 0.53, 0.22), roughness=0.5, metallic=0.35)

    floor = grid(12, 8, lambda s, t: ((s - 0.5) * 9, 0.0, (t - 0.5) * 6))
    floor.uvs = [(u * 6, v * 4) for u, v in floor.uvs]
    drop = grid(16, 9, lambda s, t: ((s - 0.5) * 7.2, 4.25 - 4.05 * t, 0.02 * math.sin(s * 19) * t))
    arch = Mesh()
    arch.add(box(0.5, 4.6, 0.4), (-4.5, 2.3, 0)).add(box(0.5, 4.6, 0.4), (4.5, 2.3, 0)).add(box(9.5, 0.5, 0.4), (0, 4.85, 0))
    for i in range(9):
        arch.add(box(0.34, 0.34, 0.1), (-4.0 + i, 4.85, 0.25))

    pipe = g.mesh("batten", batten(8.4, 0.028), steel)
    bag = g.mesh("sandbag", sandbag(), sailcloth)
    leg = g.mesh("leg", drape(1.5, 4.4, 5, 0.07), velvet)
    border = g.mesh("border", swag(8.6, 0.95, 0.03), velvet)

    lines = []
    for i, z in enumerate((-2.5, -1.0, 0.5)):
        bags = [g.node(f"sandbag {i + 1}{side}", bag, (x, -0.68, 0)) for side, x in (("a", -4.0), ("b", 4.0))]
        lines.append(g.node(f"line {i + 1}", pipe, (0, 5.1 + 0.12 * i, z), bags))
    nodes = [
        g.node("boards", g.mesh("boards", floor, oak)),
        g.node("harbour, night", g.mesh("backdrop", drop, backdrop), (0, 0, -2.5)),
        g.node("leg, stage right", leg, (-3.7, 0, 1.2)),
        g.node("leg, stage left", leg, (3.7, 0, 1.2)),
        g.node("border", border, (0, 4.75, 1.4)),
        g.node("proscenium", g.mesh("proscenium", arch, gilt), (0, 0, 2.4)),
        *lines,
        g.node("front of house", at=(0, 2.1, 11.5), camera=g.put("cameras", {
            "name": "front of house", "type": "perspective",
            "perspective": {"yfov": 0.52, "aspectRatio": 1.7777778, "znear": 0.1, "zfar": 60.0},
        })),
    ]
    g.finish(g.node("stage", children=nodes), "stage.bin")
    return g


def ghost_light():
    """The lamp that is left burning on an empty stage, in one file but for the texture of its foot."""
    g = Gltf("Made for Flyloft; MIT OR Apache-2.0")
    oak = g.material("oak foot", texture=g.texture("../textures/boards.png", True))
    brass = g.material("brass", rgb=(0.55, 0.40, 0.14), roughness=0.35, metallic=1.0)
    glow = g.material("bulb", rgb=(1.0, 0.86, 0.55), roughness=0.2, emissive=(1.0, 0.78, 0.42))
    cage = g.material("wire", rgb=(0.12, 0.12, 0.12), roughness=0.5, metallic=0.8)
    foot = lathe([(0.0, 0.09), (0.16, 0.09), (0.24, 0.05), (0.25, 0.0), (0.0, 0.0)], 24)
    pole = lathe([(0.0, 1.46), (0.035, 1.45), (0.045, 1.38), (0.017, 1.34), (0.017, 0.12), (0.05, 0.09)], 14)
    bulb = lathe([(0.0, 1.66), (0.04, 1.65), (0.062, 1.60), (0.058, 1.55), (0.03, 1.49), (0.026, 1.46)], 16)
    wires = Mesh()
    for i in range(6):
        angle = math.pi * i / 6
        rib = grid(20, 1, lambda s, t, a=angle: (
            math.cos(a) * 0.105 * math.cos(s * 2 * math.pi),
            1.56 + 0.135 * math.sin(s * 2 * math.pi) + 0.004 * t,
            math.sin(a) * 0.105 * math.cos(s * 2 * math.pi),
        ))
        wires.add(rib)
    nodes = [
        g.node(name, g.mesh(name, mesh, material))
        for name, mesh, material in (("foot", foot, oak), ("pole", pole, brass), ("bulb", bulb, glow), ("cage", wires, cage))
    ]
    g.finish(g.node("ghost light", children=nodes))
    return g


def obj(name, mesh, library, material):
    """Wavefront OBJ; its V axis points up, where glTF's points down."""
    lines = [f"# {name}, made for Flyloft by scripts/make-assets.py", f"mtllib {library}", f"o {name}"]
    lines += ["v %.5f %.5f %.5f" % p for p in mesh.positions]
    lines += ["vt %.5f %.5f" % (u * 2, 1 - v) for u, v in mesh.uvs]
    lines += ["vn %.4f %.4f %.4f" % n for n in mesh.normals]
    lines += [f"usemtl {material}", "s 1"]
    for at in range(0, len(mesh.indices), 3):
        lines.append("f " + " ".join(f"{i + 1}/{i + 1}/{i + 1}" for i in mesh.indices[at : at + 3]))
    return ("\n".join(lines) + "\n").replace("-0.00000", "0.00000").replace("-0.0000 ", "0.0000 ")


# ---------------------------------------------------------------------------------------------------------
# Sound


def bell(rate=22050, seconds=1.8):
    """A prompt-corner bell: the partials of a small church bell, each with its own decay, and a strike."""
    partials = [(0.5, 0.30, 0.9), (1.0, 1.0, 1.1), (1.2, 0.55, 1.5), (1.5, 0.35, 1.9), (2.0, 0.80, 2.2), (2.67, 0.40, 3.6),
                (3.01, 0.22, 4.8), (4.1, 0.16, 6.5), (5.43, 0.10, 9.0)]
    count = int(rate * seconds)
    base = 659.26
    samples = []
    for n in range(count):
        t = n / rate
        value = 0.0
        for i, (ratio, level, decay) in enumerate(partials):
            beat = 1 + 0.0006 * math.sin(2 * math.pi * (0.7 + 0.3 * i) * t)
            value += level * math.exp(-decay * 1.7 * t) * math.sin(2 * math.pi * base * ratio * beat * t)
        if t < 0.012:
            value += 0.9 * (hash01(n, 0, 77) * 2 - 1) * (1 - t / 0.012)
        value *= min(1.0, t / 0.0015) * min(1.0, (seconds - t) / 0.08)
        samples.append(value)
    peak = max(abs(s) for s in samples)
    data = struct.pack(f"<{count}h", *(round(s / peak * 27000) for s in samples))
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16)
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


# ---------------------------------------------------------------------------------------------------------


def main():
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and sys.argv[1].startswith("-")):
        sys.exit(__doc__)
    root = Path(sys.argv[1]) if len(sys.argv) == 2 else Path(__file__).resolve().parent.parent / "examples" / "assets"
    scene, lamp = stage(), ghost_light()
    outputs = {
        "textures/harbour-night.png": harbour_night(640, 360),
        "textures/hills-dawn.png": hills_dawn(640, 360),
        "textures/boards.png": boards(192),
        "textures/canvas.png": canvas(64),
        "scenes/stage.gltf": (json.dumps(scene.json, indent=1) + "\n").encode(),
        "scenes/stage.bin": bytes(scene.blob),
        "scenes/ghost-light.glb": lamp.glb(),
        "models/sandbag.obj": obj("sandbag", sandbag(), "sandbag.mtl", "sailcloth").encode(),
        "audio/bell.wav": bell(),
    }
    for name, data in outputs.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
        print(f"{len(data):8} {name}")


if __name__ == "__main__":
    main()
