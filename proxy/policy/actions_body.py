"""Build the actions on content: with what stands in files of the policy directory.

Everything is read here, once per generation; a request never touches the disk. What cannot be
read is complained of at its place, and there is no action then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

from yaml.nodes import Node

from proxy.patterns import PatternError
from proxy.policy import ast, then_body
from proxy.policy.media_types import PLAIN_TEXT, media_type, with_charset
from proxy.policy.positions import value_of
from proxy.policy.resources import Resources
from proxy.policy.values import Unfit

_INDEX = "index.html"


def build_banner(
    model: then_body.InjectBannerAction, node: Node, resources: Resources
) -> ast.InjectBanner | None:
    path = model.file or model.template_file
    form, content = ast.Form.HTML, model.html
    if model.text is not None:
        form, content = ast.Form.TEXT, model.text
    elif model.template is not None:
        form, content = ast.Form.TEMPLATE, model.template
    elif path is not None:
        form = ast.Form.TEMPLATE if model.template_file else ast.Form.HTML
        content = _text_file(path, node, resources, form is ast.Form.TEMPLATE)
    if content is None:
        return None
    return ast.InjectBanner(content, form, model.at, model.csp, model.frames)


def _text_file(path: str, node: Node, resources: Resources, template: bool) -> str | None:
    where = _place(node, "template_file" if template else "file")
    text = resources.text(path, where, "banner", then_body.MAX_BANNER)
    return _checked(text, where, resources) if template and text is not None else text


def _checked(text: str, where: Node, resources: Resources) -> str | None:
    """A template from a file; in the policy itself the model has checked it."""
    try:
        return then_body.check_template(text)
    except Unfit as error:
        resources.complain(where, str(error), error.hint)
        return None


def _place(node: Node, key: str) -> Node:
    return value_of(node, key) or node


# --- replacements --------------------------------------------------------------------------


def build_replace(
    items: list[then_body.ReplaceItem], node: Node, resources: Resources
) -> tuple[ast.Replace, ...]:
    """One search over all of them; where their directions differ, one for each direction."""
    made = [(item, _replacement(item, node, resources)) for item in items]
    good = [(item, built) for item, built in made if built is not None]
    directions = {_direction(item) for item, _ in good}
    if len(directions) <= 1:
        return tuple(ast.Replace(tuple(b for _, b in good), way) for way in directions)
    return tuple(
        ast.Replace(tuple(b for item, b in good if _direction(item) in (way, "both")), way)
        for way in ("outbound", "inbound")
    )


def _direction(item: then_body.ReplaceItem) -> str:
    return item.direction if isinstance(item, then_body.StreamReplaceItem) else "both"


def _replacement(
    item: then_body.ReplaceItem, node: Node, resources: Resources
) -> ast.Replacement | None:
    try:
        return ast.Replacement(item.pattern(), item.by)
    except PatternError as error:
        resources.complain(node, str(error), error.hint)
        return None


# --- content -------------------------------------------------------------------------------


def build_content(
    model: then_body.ContentModel, node: Node, resources: Resources
) -> ast.Content | None:
    """The content of set_body and respond; empty where none is given."""
    if model.file is not None:
        where = _place(node, "file")
        data = resources.content(model.file, where)
        if data is None:
            return None
        return ast.Content(data, model.content_type or media_type(model.file, data))
    template, text, kind = model.template is not None, model.text or model.template, PLAIN_TEXT
    if model.template_file is not None:
        where = _place(node, "template_file")
        template = True
        text = resources.text(model.template_file, where, "template", then_body.MAX_CONTENT)
        if text is None or _checked(text, where, resources) is None:
            return None
        kind = media_type(model.template_file, b"")
    data = (text or "").encode("utf-8")
    return ast.Content(data, with_charset(model.content_type or kind), template)


def build_respond(
    model: then_body.RespondAction, node: Node, resources: Resources
) -> ast.Respond | None:
    content = build_content(model, node, resources)
    if content is None:
        return None
    return ast.Respond(model.status, content, tuple(model.headers.items()))


# --- local files ---------------------------------------------------------------------------


def build_map_local(
    model: then_body.MapLocalAction, node: Node, resources: Resources
) -> ast.MapLocal | None:
    """For one path: as a prefix that only its own end has a file for; any other path passes."""
    if model.path is not None and model.file is not None:
        data = resources.content(model.file, _place(node, "file"))
        if data is None:
            return None
        return ast.MapLocal(
            model.path, MappingProxyType({"": _local(model.file, data)}), missing="pass"
        )
    folder = resources.folder(model.dir or "", _place(node, "dir"))
    if folder is None:
        return None
    prefix = (model.prefix or "/").removesuffix("/") + "/"
    return ast.MapLocal(prefix, MappingProxyType(_files(folder)), model.missing)


def _files(folder: Mapping[str, bytes]) -> dict[str, ast.LocalFile]:
    """By path; a folder's index.html stands for the folder as well."""
    files = {path: _local(path, data) for path, data in folder.items()}
    for path in folder:
        above, slash, name = path.rpartition("/")
        if name == _INDEX:
            files[above + slash] = files[path]
    return files


def _local(path: str, data: bytes) -> ast.LocalFile:
    digest = hashlib.sha256(data).hexdigest()
    return ast.LocalFile(media_type(path, data), data, f'"{digest[:32]}"')
