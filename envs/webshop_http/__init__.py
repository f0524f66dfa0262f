"""WebShop on a running server of princeton-nlp/WebShop, played through its pages.

`site_client` fetches pages, `html_pages` parses them, and `game` is the environment; `spec` describes it without
loading an HTTP client or an HTML parser. Action grammar and texts are those of `envs.webshop`. Start with `game`, whose
`WebShopHttp` is the public name.
"""
