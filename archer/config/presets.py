"""Find configuration files: by path, or by the name of a preset."""

from pathlib import Path

from archer.errors import ConfigError


def presets() -> dict[str, Path]:
    """Return the presets by name; the name of a preset in a folder has the folder's: "paper/key_door".

    Searched are configs/ in the working directory, configs/ beside the packages (a checkout), and presets/ inside the
    package (a wheel); the first folder that has a name wins.
    """
    package = Path(__file__).resolve().parents[1]
    folders = [package / "presets", package.parent / "configs", Path("configs")]
    return {
        file.relative_to(folder).with_suffix("").as_posix(): file
        for folder in folders
        for file in sorted([*folder.glob("*.yaml"), *folder.glob("*/*.yaml")])
    }


def find_config(name: str | Path) -> Path:
    """Return the file of a path or of a preset's name. Raises ConfigError, which lists the presets."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    available = presets()
    preset = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    if preset in available:
        return available[preset]
    fault = "is a folder, not a configuration file" if path.is_dir() else "does not exist"
    names = ", ".join(sorted(available)) or "none found"
    raise ConfigError(f"configuration {str(name)!r} {fault}; give the path of a YAML file, or a preset: {names}")
