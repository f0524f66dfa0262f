"""Looking at runs: the web page of `archer view`, the file of `archer report`, the terminal of `archer top`.

All three read run folders and write nothing into them, also while a run is active. `archer.viewer.runs` reads a folder,
complete or half written; `archer.viewer.curves` turns its rows into charts. `archer.viewer.store` indexes the episodes,
`archer.viewer.app` is the web application, and `static/` its page. What a run stores for them is in `learner.history`.
"""
