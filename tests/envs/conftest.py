import sys
from pathlib import Path

# env_cases must be importable by name, here and (by the search path it is given) in child processes.
sys.path.insert(0, str(Path(__file__).parent))
