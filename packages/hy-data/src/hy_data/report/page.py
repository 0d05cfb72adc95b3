"""`report.html`: one file without scripts, whose pictures are inside of it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hy_core.files import write_text

from hy_data.report import gallery, plots
from hy_data.report.words import end, shown
from hy_data.select.choose import USABLE
from hy_data.select.decide import read_decision
from hy_data.select.rules import Columns
from hy_data.table import open_scores, read_scores, score_of

_MOST_REASONS = 20
_ABOUT = {
    "side": "square root of the area that the crop leaves",
    "shorter_side": "shorter side of what the crop leaves",
    "aspect": "width by height",
}
_UNITS = {"side": "pixels", "shorter_side": "pixels", "duration": "s"}


def write_page(folder: Path | str, pictures: int = 6) -> Path:
    """Write `report.html` of a decided folder and return its path.

    `pictures`: how many clips are shown for each rule of each set, 0 for none. Names, captions and reasons are
    untrusted: everything is escaped, pictures are read by `hy_core.media`, nothing is loaded from elsewhere.
    """
    folder = Path(folder)
    decision = read_decision(folder)
    with open_scores(folder / "manifest.parquet") as file:
        names = file.schema_arrow.names
        manifest = file.read([name for name in names if name in _needed(decision.sets)])
        sets = []
        for one in decision.sets:
            reasons = f"reasons_{one['name']}"
            own = manifest.append_column(reasons, file.read([reasons])[reasons])
            sets.append(_set(one, own, folder, pictures))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hy_data", "report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"shown": shown, "end": end}
    text = environment.get_template("page.html.j2").render(
        clips=len(manifest),
        files=pc.count_distinct(manifest["path"]).as_py(),
        hours=_hours(manifest),
        notes=decision.notes,
        sets=sets,
        unusable=_unusable(manifest),
        plots=list(_plots(decision.sets, manifest)),
        balance=list(_balance(decision.sets, folder)),
    )
    path = folder / "report.html"
    write_text(path, text)
    return path


def _needed(sets: tuple[dict[str, Any], ...]) -> set[str]:
    facts = {
        "id",
        "path",
        "start",
        "stop",
        "crop",
        "width",
        "height",
        "captions",
        "status",
        "stage",
        "reason",
    }
    own = {f"kept_{one['name']}" for one in sets}
    scores = {step["score"] for one in sets for step in one["funnel"]}
    return facts | own | scores


def _set(one: Mapping[str, Any], manifest: pa.Table, folder: Path, pictures: int) -> dict[str, Any]:
    before, steps = one["clips"], []
    galleries: list[dict[str, Any]] = []
    for step in one["funnel"]:
        steps.append(
            {
                **step,
                "before": round(100 * before / max(one["clips"], 1), 2),
                "after": round(100 * step["left"] / max(before, 1), 2),
            }
        )
        before = step["left"]
        hidden = step["score"] == USABLE.score or (one["from"] and step["sense"] in ("is", "null"))
        shown_here = 0 if hidden else pictures
        if step["dropped"] and shown_here:
            title = f"Dropped by the rule “{step['rule']}”: {step['dropped']}"
            galleries.append(
                {"title": title, "clips": gallery.dropped(manifest, one["name"], step, shown_here)}
            )
    if pictures and one["kept"]:
        galleries.insert(
            0, {"title": "Clips of the set", "clips": gallery.kept(manifest, one["name"], pictures)}
        )
    for group in galleries:
        for clip in group["clips"]:
            clip["picture"] = gallery.picture(clip, folder)
    frames = "" if one["kind"] == "image" else f"x{one['frames']}"
    return {
        **one,
        "anchor": f"set-{one['name']}",
        "size": f"{one['height']}x{one['width']}{frames}",
        "share": f"{100 * one['kept'] / max(one['clips'], 1):.1f} %",
        "hours": _hours(manifest.filter(manifest[f"kept_{one['name']}"])),
        "funnel": steps,
        "galleries": galleries,
    }


def _hours(table: pa.Table) -> float:
    seconds = pc.sum(pc.subtract(table["stop"], table["start"])).as_py()
    return (seconds or 0.0) / 3600


def _unusable(manifest: pa.Table) -> list[dict[str, Any]]:
    rows = manifest.filter(pc.not_equal(manifest["status"], "ok")).select(["stage", "status", "reason"])
    groups = rows.group_by(["stage", "status", "reason"]).aggregate([([], "count_all")]).to_pylist()
    found = [{**one, "clips": one["count_all"]} for one in groups]
    found.sort(key=lambda one: (-one["clips"], str(one["stage"]), str(one["reason"])))
    rest = sum(one["clips"] for one in found[_MOST_REASONS:])
    others = [{"stage": "", "status": "", "reason": "other reasons", "clips": rest}] if rest else []
    return found[:_MOST_REASONS] + others


def _plots(sets: tuple[dict[str, Any], ...], manifest: pa.Table) -> Iterator[dict[str, Any]]:
    usable = manifest.filter(pc.equal(manifest["status"], "ok"))
    columns = Columns(usable)
    lines: dict[str, dict[str, float]] = {}
    for one in sets:
        for step in one["funnel"]:
            if step["sense"] in ("min", "max") and step["score"] in columns:
                lines.setdefault(step["score"], {})
                if step["threshold"] is not None:
                    side = "≥" if step["sense"] == "min" else "≤"
                    lines[step["score"]][f"{one['name']} {side}"] = step["threshold"]
    for name, thresholds in lines.items():
        score = score_of(usable.schema.field(name)) if name in usable.column_names else None
        unit = _UNITS.get(name, score.unit if score else "")
        image = plots.histogram(
            columns.numbers(name), thresholds, shown(f"{name}, {unit}" if unit else name, 60)
        )
        yield {
            "score": name,
            "description": score.description if score else _ABOUT.get(name, ""),
            "image": _data_uri(image),
        }


def _balance(sets: tuple[dict[str, Any], ...], folder: Path) -> Iterator[dict[str, Any]]:
    for one in sets:
        rows = read_scores(folder / "sets" / f"{one['name']}.parquet", ["concept", "sampling_weight"])
        if rows.num_columns < 2:
            return
        rows = rows.filter(pc.is_valid(rows["concept"]))
        groups = rows.group_by("concept").aggregate([([], "count_all"), ("sampling_weight", "sum")])
        if len(groups) < 2:
            continue
        before, after = (
            np.asarray(groups[name], np.float64) for name in ("count_all", "sampling_weight_sum")
        )
        before, after = before / before.sum(), after / max(after.sum(), 1e-12)
        yield {
            "name": one["name"],
            "concepts": len(groups),
            "before": plots.effective(before),
            "after": plots.effective(after),
            "image": _data_uri(plots.balance(before, after)),
        }


def _data_uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
