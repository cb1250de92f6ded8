"""The actions of a rule: which layer can have which, and the models turned into `ast`."""

from __future__ import annotations

from yaml.nodes import Node

from proxy.model import Endpoint, Layer, normalise_ip
from proxy.policy import ast, then, then_body
from proxy.policy.actions_body import (
    build_banner,
    build_content,
    build_map_local,
    build_replace,
    build_respond,
)
from proxy.policy.positions import Complaints, entries, value_of
from proxy.policy.resources import Resources
from proxy.policy.suggest import one_of

HTTP = frozenset({Layer.HTTP_REQUEST, Layer.HTTP_RESPONSE})
BODIES = frozenset({Layer.HTTP_REQUEST_BODY, Layer.HTTP_RESPONSE_BODY})
#: Where a block can show a page.
PAGED = HTTP | BODIES
#: Sublayers are arbitrated here, so here an action can be hard or soft.
ARBITRATED = frozenset({Layer.CONNECT_REDIRECT, Layer.AUTH_CONNECT})
#: What has been discarded or closed already can only be noted.
DECIDING = frozenset(Layer) - {Layer.STREAM_DISCARD, Layer.ENDPOINT_CLOSURE}
_REQUEST = frozenset({Layer.HTTP_REQUEST})
LAYERS_OF: dict[str, frozenset[Layer]] = {
    "permit": DECIDING,
    "block": DECIDING,
    "redirect": HTTP,
    "redirect_to": frozenset({Layer.CONNECT_REDIRECT}),
    "respond": _REQUEST,
    "map_local": _REQUEST,
    "headers": HTTP,
    "rewrite_url": _REQUEST,
    "inject_banner": frozenset({Layer.HTTP_RESPONSE}),
    "replace_body": HTTP,
    "remove_body": HTTP,
    "set_body": HTTP,
    "replace": frozenset({Layer.STREAM}),
    "tag": frozenset(Layer),
    "log": frozenset(Layer),
}
TERMINAL = ("permit", "block", "redirect", "redirect_to", "respond", "map_local")
#: Edits of which a rule can have one: what the first leaves the second has no use for.
EXCLUSIVE = (
    ("remove_body", "set_body"),
    ("remove_body", "replace_body"),
    ("remove_body", "inject_banner"),
    ("set_body", "replace_body"),
    ("set_body", "inject_banner"),
)
_OF_A_PAGE = ("status", "reason", "page", "hold")


def check_actions(complaints: Complaints, node: Node, layer: Layer | None) -> None:
    """Complain of actions that their layer or their order makes impossible."""
    ended = ""
    for name, key, value in entries(node):
        if layer is not None and layer not in LAYERS_OF.get(name, frozenset(Layer)):
            layers = one_of(place.value for place in Layer if place in LAYERS_OF[name])
            complaints.at(key, f"{name} is not possible at {layer}", f"it is at {layers}")
        if name in TERMINAL and ended:
            complaints.at(
                key, f"{name} is never reached: {ended} ends the rule", "make it another rule"
            )
        elif name in TERMINAL:
            ended = name
        if layer is not None and name in ("permit", "block"):
            _check_settings(complaints, name, value, layer)
    _check_exclusive(complaints, node)
    if not any(True for _ in entries(node)):
        complaints.at(node, "a rule that does nothing", f"give one of {', '.join(LAYERS_OF)}")


def _check_exclusive(complaints: Complaints, node: Node) -> None:
    keys = {name: key for name, key, _ in entries(node)}
    for first, second in EXCLUSIVE:
        if first in keys and second in keys:
            message = f"{second} and {first} exclude each other"
            complaints.at(keys[second], message, "make them two rules with different conditions")


def _check_settings(complaints: Complaints, action: str, node: Node, layer: Layer) -> None:
    """Settings of permit and block that would have no effect there."""
    how = value_of(node, "how")
    by_page = layer in PAGED and (how is None or how.value == "page")
    for name, key, _ in entries(node):
        if name == "hard" and layer not in ARBITRATED:
            layers = one_of(place.value for place in Layer if place in ARBITRATED)
            complaints.at(
                key, f"{action} is neither hard nor soft at {layer}", f"it is at {layers}"
            )
        elif name in _OF_A_PAGE and not by_page:
            why = "how: page alone shows it" if layer in PAGED else "there is no page outside HTTP"
            complaints.at(key, f"{name} has no effect at {layer}", why)
        elif name == "hold" and layer not in BODIES:
            layers = one_of(place.value for place in Layer if place in BODIES)
            complaints.at(key, f"hold has no effect at {layer}", f"it holds content, at {layers}")
        elif name == "how" and layer not in PAGED and how is not None and how.value == "page":
            complaints.at(how, f"a page is not possible at {layer}", "use reset or drop")


def build_actions(
    model: then.Then, node: Node, layer: Layer, resources: Resources
) -> tuple[ast.Action, ...]:
    """The actions in the order in which they are written, without those complained of."""
    actions: list[ast.Action] = []
    for name, _, settings in entries(node):
        value = getattr(model, name, None)
        if value is None:
            continue
        if name in ("replace", "replace_body"):
            actions += build_replace(value, settings, resources)
        elif (built := _build(name, value, settings, layer, resources)) is not None:
            actions.append(built)
    return tuple(actions)


def _build(
    name: str, value: object, node: Node, layer: Layer, resources: Resources
) -> ast.Action | None:
    match value:
        case then.PermitAction():
            return ast.Permit(value.hard)
        case then.BlockAction():
            return _block(value, node, layer, resources)
        case then.RedirectAction():
            return ast.Redirect(value.to, value.status)
        case then.RedirectToAction():
            return _redirect_to(value)
        case then_body.RespondAction():
            return build_respond(value, node, resources)
        case then_body.MapLocalAction():
            return build_map_local(value, node, resources)
        case then.HeadersAction():
            return _headers(value)
        case then.RewriteUrlAction():
            return ast.RewriteUrl(value.path, value.query, value.regex, value.by or "")
        case then_body.InjectBannerAction():
            return build_banner(value, node, resources)
        case then_body.SetBodyAction():
            content = build_content(value, node, resources)
            return ast.SetBody(content) if content is not None else None
        case list():
            return ast.Tag(tuple(value))
    return ast.RemoveBody() if name == "remove_body" else ast.Log(str(value))


def _block(model: then.BlockAction, node: Node, layer: Layer, resources: Resources) -> ast.Block:
    page = value_of(node, "page")
    return ast.Block(
        hard=model.hard,
        how=model.how or ("page" if layer in PAGED else "reset"),
        hold=model.hold,
        status=model.status,
        reason=model.reason,
        page=resources.page(model.page, page) if model.page and page is not None else None,
    )


def _redirect_to(model: then.RedirectToAction) -> ast.RedirectTo:
    try:
        return ast.RedirectTo(normalise_ip(model.to), None, model.hard)
    except ValueError:
        there = Endpoint.parse(model.to)
        return ast.RedirectTo(there.host, there.port, model.hard)


def _headers(model: then.HeadersAction) -> ast.Headers:
    return ast.Headers(
        remove=tuple(model.remove),
        rename=tuple(model.rename.items()),
        replace=tuple(ast.HeaderReplace(r.name, r.regex, r.by) for r in model.replace),
        set=tuple(model.set.items()),
        add=tuple(model.add.items()),
    )
