"""The actions of a rule: which layer can have which, and the models turned into `ast`."""

from __future__ import annotations

from collections.abc import Callable

from yaml.nodes import Node

from proxy.model import Layer
from proxy.policy import ast, then
from proxy.policy.positions import Complaints, entries, value_of
from proxy.policy.suggest import one_of

HTTP = frozenset({Layer.HTTP_REQUEST, Layer.HTTP_RESPONSE})
#: Sublayers are arbitrated here, so here an action can be hard or soft.
ARBITRATED = frozenset({Layer.CONNECT_REDIRECT, Layer.AUTH_CONNECT})
#: What has been discarded or closed already can only be noted.
DECIDING = frozenset(Layer) - {Layer.STREAM_DISCARD, Layer.ENDPOINT_CLOSURE}
LAYERS_OF: dict[str, frozenset[Layer]] = {
    "permit": DECIDING,
    "block": DECIDING,
    "redirect": HTTP,
    "headers": HTTP,
    "rewrite_url": frozenset({Layer.HTTP_REQUEST}),
    "inject_banner": frozenset({Layer.HTTP_RESPONSE}),
    "tag": frozenset(Layer),
    "log": frozenset(Layer),
}
TERMINAL = ("permit", "block", "redirect")
_OF_A_PAGE = ("status", "reason", "page")

ReadPage = Callable[[str, Node], str | None]


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
    if not any(True for _ in entries(node)):
        complaints.at(node, "a rule that does nothing", f"give one of {', '.join(LAYERS_OF)}")


def _check_settings(complaints: Complaints, action: str, node: Node, layer: Layer) -> None:
    """Settings of permit and block that would have no effect there."""
    how = value_of(node, "how")
    by_page = layer in HTTP and (how is None or how.value == "page")
    for name, key, _ in entries(node):
        if name == "hard" and layer not in ARBITRATED:
            layers = one_of(place.value for place in Layer if place in ARBITRATED)
            complaints.at(
                key, f"{action} is neither hard nor soft at {layer}", f"it is at {layers}"
            )
        elif name in _OF_A_PAGE and not by_page:
            why = "how: page alone shows it" if layer in HTTP else "there is no page outside HTTP"
            complaints.at(key, f"{name} has no effect at {layer}", why)
        elif name == "how" and layer not in HTTP and how is not None and how.value == "page":
            complaints.at(how, f"a page is not possible at {layer}", "use reset or drop")


def build_actions(
    model: then.Then, node: Node, layer: Layer, read_page: ReadPage
) -> tuple[ast.Action, ...]:
    """The actions in the order in which they are written."""
    actions = []
    for name, _, settings in entries(node):
        value = getattr(model, name, None)
        if value is not None:
            actions.append(_build(value, settings, layer, read_page))
    return tuple(actions)


def _build(value: object, node: Node, layer: Layer, read_page: ReadPage) -> ast.Action:
    match value:
        case then.PermitAction():
            return ast.Permit(value.hard)
        case then.BlockAction():
            return _block(value, node, layer, read_page)
        case then.RedirectAction():
            return ast.Redirect(value.to, value.status)
        case then.HeadersAction():
            return _headers(value)
        case then.RewriteUrlAction():
            return ast.RewriteUrl(value.path, value.query, value.regex, value.by or "")
        case then.InjectBannerAction():
            return ast.InjectBanner(value.html, at=value.at)
        case list():
            return ast.Tag(tuple(value))
    return ast.Log(str(value))


def _block(model: then.BlockAction, node: Node, layer: Layer, read_page: ReadPage) -> ast.Block:
    page = value_of(node, "page")
    return ast.Block(
        hard=model.hard,
        how=model.how or ("page" if layer in HTTP else "reset"),
        status=model.status,
        reason=model.reason,
        page=read_page(model.page, page) if model.page and page is not None else None,
    )


def _headers(model: then.HeadersAction) -> ast.Headers:
    return ast.Headers(
        remove=tuple(model.remove),
        rename=tuple(model.rename.items()),
        replace=tuple(ast.HeaderReplace(r.name, r.regex, r.by) for r in model.replace),
        set=tuple(model.set.items()),
        add=tuple(model.add.items()),
    )
