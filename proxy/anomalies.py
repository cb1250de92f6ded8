"""Named protocol irregularities: the one table of stable ids, and what each one means.

A policy's `anomalies:` maps an id or a glob of ids to `refuse` or `repair`; events, metrics
and pages use the same ids. Repair means: forward the canonical form of our own reading. It is
possible only where an RFC names that reading, so that no recipient can be led to another one;
for every other id `repair` is ignored and the message is refused.

RFC 9110 (semantics), RFC 9112 (HTTP/1.1), RFC 8446 (TLS 1.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.model import Direction


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One irregularity. `client_status` is what a refused request is answered with."""

    id: str
    doc: str
    client_status: int = 400
    repairable: bool = False
    default: str = "refuse"  #: refuse | repair, where no policy names the id

    def status(self, direction: Direction) -> int:
        """Status of the page the client gets when a message of `direction` is refused."""
        return self.client_status if direction is Direction.OUTBOUND else 502


_TABLE = (
    # --- start line
    Anomaly("http1.request_line", "request line is not METHOD SP TARGET SP VERSION (9112 3)"),
    Anomaly("http1.status_line", "status line is not VERSION SP 3DIGIT SP REASON (9112 4)", 502),
    Anomaly("http1.status_code", "status code outside 100 to 599 (9110 15)", 502),
    Anomaly("http1.version", "protocol version other than HTTP/1.x (9110 2.5)", 505),
    Anomaly(
        "http1.version_minor", "HTTP/1.2 to 1.9; read as HTTP/1.1 (9110 2.5)", 505, repairable=True
    ),
    Anomaly("http1.target_form", "target form does not fit the method (9112 3.2)"),
    Anomaly("http1.target_char", "character that no URI may hold in the target (9112 3.2)"),
    Anomaly("http1.target_userinfo", "user information in the target (9110 4.2.4)"),
    Anomaly(
        "http1.connect",
        "CONNECT on a redirected connection; repair forwards it, and then the tunnel (9110 9.3.6)",
        repairable=True,
    ),
    # --- authority
    Anomaly("http1.host_missing", "HTTP/1.1 request without Host (9112 3.2)"),
    Anomaly("http1.host_multiple", "more than one Host (9112 3.2)"),
    Anomaly("http1.host_invalid", "Host is not host[:port] (9112 3.2)"),
    Anomaly(
        "http1.authority_mismatch",
        "absolute-form target names another authority than Host; the target counts (9112 3.2.2)",
        repairable=True,
    ),
    # --- lines and fields
    Anomaly("http1.bare_lf", "line of a head ended by LF alone (9112 2.2)", repairable=True),
    Anomaly("http1.bare_cr", "CR without LF in a head; read as a blank (9112 2.2)"),
    Anomaly("http1.nul", "NUL in a field value; read as a blank (9110 5.5)", repairable=True),
    Anomaly("http1.value_ctl", "control character in a field value or reason (9110 5.5)"),
    Anomaly("http1.obs_fold", "field value folded over several lines (9112 5.2)", repairable=True),
    Anomaly("http1.leading_blank", "white space before the first field line (9112 2.2)"),
    Anomaly("http1.space_before_colon", "white space before a field's colon (9112 5.1)"),
    Anomaly("http1.field_line", "field line without a colon (9112 5)"),
    Anomaly("http1.field_name", "field name that is not a token (9110 5.1)"),
    Anomaly("http1.head_too_large", "head above the size limit (9110 15.5.15, RFC 6585 5)", 431),
    Anomaly("http1.target_too_long", "request line above the size limit (9110 15.5.15)", 414),
    Anomaly("http1.too_many_fields", "more field lines than the limit (RFC 6585 5)", 431),
    # --- framing
    Anomaly(
        "http1.te_and_cl",
        "Transfer-Encoding together with Content-Length; the former counts (9112 6.3)",
        repairable=True,
    ),
    Anomaly("http1.te_http10", "Transfer-Encoding in an HTTP/1.0 message (9112 6.1)"),
    Anomaly("http1.te_unknown", "transfer coding other than chunked (9112 6.1)", 501),
    Anomaly("http1.te_invalid", "Transfer-Encoding that does not name chunked once, last"),
    Anomaly("http1.cl_invalid", "Content-Length that is not a number, or several (9112 6.3)"),
    Anomaly("http1.cl_too_large", "Content-Length of more than 18 digits", 413),
    Anomaly("http1.cl_duplicate", "Content-Length repeated with equal values", repairable=True),
    Anomaly(
        "http1.cl_leading_zero",
        "Content-Length with leading zeros, always decimal (9110 8.6)",
        repairable=True,
    ),
    Anomaly(
        "http1.framing_alias",
        "Transfer_Encoding or Content_Length, which some servers read as the real ones",
        repairable=True,
    ),
    Anomaly("http1.chunk_size", "chunk size that is not a hexadecimal number (9112 7.1)"),
    Anomaly("http1.chunk_line_too_long", "chunk size line above the size limit", 413),
    Anomaly("http1.chunk_crlf", "chunk line or data not ended by CRLF (9112 7.1)"),
    Anomaly(
        "http1.chunk_ext",
        "chunk extension, which no recipient needs and some misread; removed (9112 7.1.1)",
        repairable=True,
        default="repair",
    ),
    Anomaly("http1.chunk_ext_invalid", "chunk extension that breaks the grammar (9112 7.1.1)"),
    Anomaly("http1.trailer_field", "trailer section that is not made of field lines"),
    Anomaly(
        "http1.trailer_forbidden",
        "trailer field that would change framing, routing or credentials (9110 6.5.1)",
        repairable=True,
    ),
    Anomaly("http1.trailer_too_large", "trailer section above the size limit", 431),
    # --- order of things
    Anomaly("http1.truncated_head", "connection ended inside a head (9112 8)"),
    Anomaly(
        "http1.upgrade_h2c",
        "offer to go on in HTTP/2 without TLS, where nothing could be inspected (RFC 9113 3.1)",
        repairable=True,
        default="repair",
    ),
    Anomaly("http1.unasked_101", "101 to a request that did not offer an upgrade", 502),
    Anomaly("http1.too_many_interim", "more interim responses than the limit", 502),
    Anomaly(
        "http1.body_on_bodiless",
        "Content-Length or Transfer-Encoding on 1xx or 204; removed (9110 8.6, 9112 6.1)",
        502,
        repairable=True,
        default="repair",
    ),
    Anomaly("http1.extra_bytes", "bytes from the server that answer no request", 502),
    Anomaly("http1.server_spoke_first", "bytes from the server before any request", 502),
    # --- content, where it is to be looked into or edited
    Anomaly("body.coding_unknown", "content coding that cannot be taken off (9110 8.4.1)", 415),
    Anomaly("body.coding_invalid", "content is not coded as its head says (9110 8.4)"),
    Anomaly("body.coding_truncated", "coded content that ends early (9110 8.4)"),
    Anomaly("body.bomb", "coded content that grows beyond the limits", 413),
    Anomaly("body.partial", "part of a body (206) where the whole is to be edited (9110 14.4)"),
    # --- TLS
    Anomaly("tls.bad_client_hello", "what starts like TLS is not a ClientHello (8446 4.1.2)"),
    Anomaly("tls.client_hello_too_large", "ClientHello above the size limit"),
)

ANOMALIES: dict[str, Anomaly] = {anomaly.id: anomaly for anomaly in _TABLE}
