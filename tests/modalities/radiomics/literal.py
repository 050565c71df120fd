"""Every feature as a plain loop over pixels, written from pyradiomics' documentation.

Slow and short. `literal` of one region is held against the batched code; nothing is shared with it.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, product

import numpy as np

Pixels = dict[tuple[int, int], int]
AROUND = [(dy, dx) for dy, dx in product((-1, 0, 1), repeat=2) if (dy, dx) != (0, 0)]
ANGLES = [(0, 1), (1, 0), (1, 1), (1, -1)]
NAN = float("nan")


def literal(greys: np.ndarray, mask: np.ndarray, width: float = 25.0) -> dict[str, float]:
    """All features of the pixels of [h, w] in the mask, at least one of them."""
    pixels = {(int(y), int(x)): int(greys[y, x]) for y, x in np.argwhere(mask)}
    least = math.floor(min(pixels.values()) / width)
    levels = {place: math.floor(grey / width) - least + 1 for place, grey in pixels.items()}
    families = {
        "first_order": first_order(sorted(pixels.values()), list(levels.values())),
        "shape": shape(set(pixels)),
        "glcm": glcm(levels),
        "glrlm": glrlm(levels),
        "glszm": glszm(levels),
        "gldm": gldm(levels),
        "ngtdm": ngtdm(levels),
    }
    return {
        f"{family}.{name}": v for family, found in families.items() for name, v in found.items()
    }


def bits(shares) -> float:
    return -sum(share * math.log2(share) for share in shares if share > 0)


def percentile(ordered: list[int], percent: float) -> float:
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def average(values) -> float:
    values = list(values)
    return sum(values) / len(values) if values else NAN


def deviation(values) -> float:
    values = list(values)
    return average(abs(value - average(values)) for value in values)


def first_order(greys: list[int], levels: list[int]) -> dict[str, float]:
    n, mean = len(greys), average(greys)
    second, third, fourth = (average((grey - mean) ** k for grey in greys) for k in (2, 3, 4))
    p10, p25, p75, p90 = (percentile(greys, percent) for percent in (10, 25, 75, 90))
    shares = [count / n for count in Counter(levels).values()]
    return {
        "10_percentile": p10,
        "90_percentile": p90,
        "energy": sum(grey**2 for grey in greys),
        "entropy": bits(shares),
        "interquartile_range": p75 - p25,
        "kurtosis": fourth / second**2 if second else 0.0,
        "maximum": greys[-1],
        "mean_absolute_deviation": deviation(greys),
        "mean": mean,
        "median": percentile(greys, 50),
        "minimum": greys[0],
        "range": greys[-1] - greys[0],
        "robust_mean_absolute_deviation": deviation(g for g in greys if p10 <= g <= p90),
        "root_mean_squared": math.sqrt(average(grey**2 for grey in greys)),
        "skewness": third / second**1.5 if second else 0.0,
        "total_energy": sum(grey**2 for grey in greys),
        "uniformity": sum(share**2 for share in shares),
        "variance": second,
    }


def shape(pixels: set[tuple[int, int]]) -> dict[str, float]:
    lines = []
    for y, x in {(y + dy, x + dx) for y, x in pixels for dy, dx in product((-1, 0), repeat=2)}:
        corners = [(y, x), (y, x + 1), (y + 1, x + 1), (y + 1, x)]
        inside = [corner in pixels for corner in corners]
        middle = [
            tuple((a + b) / 2 for a, b in zip(corners[k], corners[(k + 1) % 4], strict=True))
            for k in range(4)
        ]
        for k in range(4):  # where a run of corners inside begins, go to where it ends
            if inside[k] and not inside[k - 1]:
                end = k
                while inside[(end + 1) % 4]:
                    end += 1
                lines.append((middle[end % 4], middle[k - 1]))
    perimeter = sum(math.dist(a, b) for a, b in lines)
    surface = abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in lines)) / 2
    vertices = {vertex for line in lines for vertex in line}
    n = len(pixels)
    my, mx = (average(place[k] for place in pixels) for k in (0, 1))
    yy = sum((y - my) ** 2 for y, _ in pixels) / n
    xx = sum((x - mx) ** 2 for _, x in pixels) / n
    xy = sum((y - my) * (x - mx) for y, x in pixels) / n
    minor, major = np.linalg.eigvalsh(np.array([[yy, xy], [xy, xx]])).clip(min=0)
    return {
        "elongation": math.sqrt(minor / major) if major else NAN,
        "major_axis_length": 4 * math.sqrt(major),
        "maximum_diameter": max(math.dist(a, b) for a, b in combinations(vertices, 2)),
        "mesh_surface": surface,
        "minor_axis_length": 4 * math.sqrt(minor),
        "perimeter": perimeter,
        "perimeter_surface_ratio": perimeter / surface,
        "pixel_surface": n,
        "sphericity": 2 * math.sqrt(math.pi * surface) / perimeter,
    }


def glcm(levels: Pixels) -> dict[str, float]:
    angles = [co_occurrence(levels, angle) for angle in ANGLES]
    angles = [found for found in angles if found]
    if not angles:
        names = glcm({(0, 0): 1, (0, 1): 1})
        return dict.fromkeys(names, NAN)
    return {name: average(found[name] for found in angles) for name in angles[0]}


def co_occurrence(levels: Pixels, angle: tuple[int, int]) -> dict[str, float]:
    highest, present = max(levels.values()), sorted(set(levels.values()))
    pairs: Counter[tuple[int, int]] = Counter()
    for (y, x), i in levels.items():
        j = levels.get((y + angle[0], x + angle[1]))
        if j is not None:
            pairs[i, j] += 1
            pairs[j, i] += 1
    if not pairs:
        return {}
    p = {pair: count / pairs.total() for pair, count in pairs.items()}
    px = {i: sum(share for (a, _), share in p.items() if a == i) for i in present}
    sums = {k: sum(v for (i, j), v in p.items() if i + j == k) for k in range(2, 2 * highest + 1)}
    apart = {k: sum(v for (i, j), v in p.items() if abs(i - j) == k) for k in range(highest)}
    mean = sum(i * share for (i, _), share in p.items())
    variance = sum((i - mean) ** 2 * share for (i, _), share in p.items())
    covariance = sum((i - mean) * (j - mean) * share for (i, j), share in p.items())
    hx, hxy = bits(px.values()), bits(p.values())
    hxy1 = -sum(share * math.log2(px[i] * px[j]) for (i, j), share in p.items())
    hxy2 = bits(a * b for a in px.values() for b in px.values())
    difference = sum(k * share for k, share in apart.items())
    q = np.zeros((len(present), len(present)))
    for (a, i), (b, j) in product(enumerate(present), repeat=2):
        for k in present:
            if px[i] and px[k]:
                q[a, b] += p.get((i, k), 0) * p.get((j, k), 0) / (px[i] * px[k])
    second = sorted(np.linalg.eigvals(q).real)[-2] if len(present) > 1 else 1.0
    return {
        "autocorrelation": sum(i * j * share for (i, j), share in p.items()),
        "cluster_prominence": sum((i + j - 2 * mean) ** 4 * v for (i, j), v in p.items()),
        "cluster_shade": sum((i + j - 2 * mean) ** 3 * v for (i, j), v in p.items()),
        "cluster_tendency": sum((i + j - 2 * mean) ** 2 * v for (i, j), v in p.items()),
        "contrast": sum((i - j) ** 2 * share for (i, j), share in p.items()),
        "correlation": covariance / variance if variance > 1e-14 else 1.0,
        "difference_average": difference,
        "difference_entropy": bits(apart.values()),
        "difference_variance": sum((k - difference) ** 2 * v for k, v in apart.items()),
        "id": sum(share / (1 + k) for k, share in apart.items()),
        "idm": sum(share / (1 + k**2) for k, share in apart.items()),
        "idmn": sum(share / (1 + k**2 / highest**2) for k, share in apart.items()),
        "idn": sum(share / (1 + k / highest) for k, share in apart.items()),
        "imc1": (hxy - hxy1) / hx if hx else 0.0,
        "imc2": math.sqrt(max(0.0, 1 - math.exp(-2 * (hxy2 - hxy)))),
        "inverse_variance": sum(share / k**2 for k, share in apart.items() if k),
        "joint_average": mean,
        "joint_energy": sum(share**2 for share in p.values()),
        "joint_entropy": hxy,
        "mcc": math.sqrt(max(0.0, second)),
        "maximum_probability": max(p.values()),
        "sum_average": sum(k * share for k, share in sums.items()),
        "sum_entropy": bits(sums.values()),
        "sum_squares": variance,
    }


def emphases(parts: list[tuple[int, int]], pixels: int, words: tuple[str, ...]) -> dict[str, float]:
    """Of (level, size) of all parts; words: how the family calls small, large, size and what."""
    small, large, size, non, what = words
    n = len(parts)
    by_level, by_size = Counter(i for i, _ in parts), Counter(j for _, j in parts)
    mean_level, mean_size = average(i for i, _ in parts), average(j for _, j in parts)
    grey = f"gray_level_{what}emphasis"
    return {
        "gray_level_non_uniformity": sum(c**2 for c in by_level.values()) / n,
        "gray_level_non_uniformity_normalized": sum(c**2 for c in by_level.values()) / n**2,
        "gray_level_variance": average((i - mean_level) ** 2 for i, _ in parts),
        f"high_{grey}": average(i**2 for i, _ in parts),
        f"low_{grey}": average(1 / i**2 for i, _ in parts),
        f"{large}_emphasis": average(j**2 for _, j in parts),
        f"{large}_high_gray_level_emphasis": average(i**2 * j**2 for i, j in parts),
        f"{large}_low_gray_level_emphasis": average(j**2 / i**2 for i, j in parts),
        f"{small}_emphasis": average(1 / j**2 for _, j in parts),
        f"{small}_high_gray_level_emphasis": average(i**2 / j**2 for i, j in parts),
        f"{small}_low_gray_level_emphasis": average(1 / (i**2 * j**2) for i, j in parts),
        f"{size}_entropy": bits(c / n for c in Counter(parts).values()),
        f"{non}_non_uniformity": sum(c**2 for c in by_size.values()) / n,
        f"{non}_non_uniformity_normalized": sum(c**2 for c in by_size.values()) / n**2,
        f"{size}_percentage": n / pixels,
        f"{size}_variance": average((j - mean_size) ** 2 for _, j in parts),
    }


RUNS = ("short_run", "long_run", "run", "run_length", "run_")
ZONES = ("small_area", "large_area", "zone", "size_zone", "zone_")
DEPENDENCES = ("small_dependence", "large_dependence", "dependence", "dependence", "")


def glrlm(levels: Pixels) -> dict[str, float]:
    angles = []
    for dy, dx in ANGLES:
        lines = Counter((y * dx - x * dy) for y, x in levels)
        if max(lines.values()) < 2:
            continue
        runs = []
        for (y, x), level in levels.items():
            if levels.get((y - dy, x - dx)) == level:
                continue
            length = 1
            while levels.get((y + length * dy, x + length * dx)) == level:
                length += 1
            runs.append((level, length))
        angles.append(emphases(runs, len(levels), RUNS))
    if not angles:
        return dict.fromkeys(emphases([(1, 1)], 1, RUNS), NAN)
    return {name: average(found[name] for found in angles) for name in angles[0]}


def glszm(levels: Pixels) -> dict[str, float]:
    left, zones = dict(levels), []
    while left:
        place, level = left.popitem()
        size, edge = 0, [place]
        while edge:
            y, x = edge.pop()
            size += 1
            for dy, dx in AROUND:
                if left.get((y + dy, x + dx)) == level:
                    del left[y + dy, x + dx]
                    edge.append((y + dy, x + dx))
        zones.append((level, size))
    return emphases(zones, len(levels), ZONES)


def gldm(levels: Pixels) -> dict[str, float]:
    parts = [
        (level, 1 + sum(levels.get((y + dy, x + dx)) == level for dy, dx in AROUND))
        for (y, x), level in levels.items()
    ]
    found = emphases(parts, len(levels), DEPENDENCES)
    del found["gray_level_non_uniformity_normalized"], found["dependence_percentage"]
    return found


def ngtdm(levels: Pixels) -> dict[str, float]:
    n, s = Counter(levels.values()), Counter(dict.fromkeys(levels.values(), 0.0))
    for (y, x), level in levels.items():
        around = [levels[y + dy, x + dx] for dy, dx in AROUND if (y + dy, x + dx) in levels]
        if around:
            s[level] += abs(level - average(around))
    pixels, kinds = len(levels), len(n)
    p = {i: count / pixels for i, count in n.items()}
    coarse, total = sum(p[i] * s[i] for i in p), sum(s.values())
    busy = sum(abs(i * p[i] - j * p[j]) for i in p for j in p)
    mixed = sum(abs(i - j) * (p[i] * s[i] + p[j] * s[j]) / (p[i] + p[j]) for i in p for j in p)
    spread = sum(p[i] * p[j] * (i - j) ** 2 for i in p for j in p)
    return {
        "busyness": coarse / busy if busy else 0.0,
        "coarseness": 1 / coarse if coarse else 1e6,
        "complexity": mixed / pixels,
        "contrast": spread / (kinds * (kinds - 1)) * total / pixels if kinds > 1 else 0.0,
        "strength": sum((p[i] + p[j]) * (i - j) ** 2 for i in p for j in p) / total
        if total
        else 0.0,
    }
