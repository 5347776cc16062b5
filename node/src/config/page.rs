//! `docs/configuration.md`, rendered from the table of keys and compared with the
//! file by a test: it cannot lie. `UPDATE_DOCS=1 cargo test -p starling-node`
//! writes it.

use super::keys::{KEYS, Key};

const HEAD: &str = "\
# Configuration

A node needs no configuration. What it is told comes from four places, the later ones winning:

1. the defaults below,
2. a TOML file: `starling serve --config FILE` (or `STARLING_CONFIG=FILE`), with the keys as they stand here,
3. the environment: `STARLING_` and the key in capitals, such as `STARLING_REST_PORT`,
4. flags: the key with dashes, such as `--rest-port`.

A key that is not known is refused with the nearest one that is; so is a value of the wrong type. A node that
cannot start says why in one line and exits with code 2.

```toml
data_dir = \"/var/lib/starling\"
host = \"10.0.0.1\"
insecure = true
join = [\"10.0.0.2:8003\", \"10.0.0.3:8003\"]
bootstrap_expect = 3
labels = { zone = \"a\" }
max_request_bytes = \"64MiB\"
```

<!-- Rendered from node/src/config/keys.rs; `UPDATE_DOCS=1 cargo test -p starling-node` writes it. -->
";

fn render() -> String {
    let mut page = HEAD.to_owned();
    let mut section = "";
    for key in KEYS.iter().filter(|key| !key.hidden) {
        if key.section != section {
            section = key.section;
            page.push_str(&format!("\n## {section}\n\n| key | type | default | |\n|---|---|---|---|\n"));
        }
        page.push_str(&row(key));
    }
    page
}

fn row(key: &Key) -> String {
    let default = match key.default {
        "" => "none".to_owned(),
        default => format!("`{default}`"),
    };
    format!("| `{}` | {} | {default} | {} |\n", key.name, key.field.describe(), key.help)
}

#[test]
#[allow(clippy::unwrap_used)]
fn the_page_of_all_keys_is_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, render()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == render(),
        "docs/configuration.md is old; UPDATE_DOCS=1 cargo test -p starling-node writes it"
    );
}
