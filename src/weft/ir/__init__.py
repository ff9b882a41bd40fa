"""What a proxy shall do, in no API's terms: frozen values that compare and hash exactly.

``None`` in a field means that Envoy's own default holds; Istio's defaults are filled in by ``compile``.
"""
