import sys
from pathlib import Path

# env_cases must be importable here and in child processes, which receive this search path.
sys.path.insert(0, str(Path(__file__).parent))
