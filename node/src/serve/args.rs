//! The flags of `starling serve`: one for each key of the table, and `--config`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::builder::PathBufValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{Field, Given, KEYS};

const CONFIG: &str = "config";

/// What was given to `starling serve`. Values are checked by
/// [`crate::config::resolve`], so that a bad flag, variable and file read alike.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServeArgs {
    config: Option<PathBuf>,
    flags: BTreeMap<&'static str, String>,
}

impl ServeArgs {
    /// Together with the environment of this process.
    pub(crate) fn given(self) -> Given {
        let text = |part: std::ffi::OsString| part.into_string().ok();
        let environment: BTreeMap<String, String> =
            std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
        let file = self.config.or_else(|| environment.get("STARLING_CONFIG").map(PathBuf::from));
        Given { file, flags: self.flags, environment }
    }
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(PathBufValueParser::new())
            .help("TOML file with settings; flags and STARLING_* variables win over it");
        KEYS.iter().fold(command.arg(config), |command, key| {
            let help = match key.default {
                "" => format!("{} [env: {}]", key.help, key.variable()),
                default => format!("{} [default: {default}] [env: {}]", key.help, key.variable()),
            };
            let arg =
                Arg::new(key.name).long(key.flag()).help(help).hide(key.hidden).help_heading(key.section);
            command.arg(match key.field {
                // `--insecure` alone means true.
                Field::Flag(_) => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
                _ if key.field.repeats() => arg.action(ArgAction::Append).value_name("LIST"),
                _ => arg.value_name("VALUE"),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>(CONFIG).cloned();
        for key in KEYS {
            if let Some(values) = matches.get_many::<String>(key.name) {
                let values: Vec<&str> = values.map(String::as_str).collect();
                self.flags.insert(key.name, values.join(","));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn parse(words: &[&str]) -> Result<ServeArgs, clap::Error> {
        let command = ServeArgs::augment_args(Command::new("serve").no_binary_name(true));
        ServeArgs::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    #[test]
    fn every_key_is_a_flag() {
        let args = parse(&["--rest-port", "0", "--insecure", "--data-dir=/d", "--config", "f.toml"]).unwrap();
        let flag = |name: &str| args.flags.get(name).map(String::as_str);
        assert_eq!(
            (flag("rest_port"), flag("insecure"), flag("data_dir")),
            (Some("0"), Some("true"), Some("/d"))
        );
        assert_eq!(args.config, Some(PathBuf::from("f.toml")));
    }

    #[test]
    fn lists_may_be_repeated_and_have_commas() {
        let args = parse(&["--join", "a:1,b:2", "--join", "c:3"]).unwrap();
        assert_eq!(args.flags["join"], "a:1,b:2,c:3");
    }

    #[test]
    fn a_flag_that_is_not_known_is_refused_with_the_nearest() {
        let text = parse(&["--rest-prot", "1"]).unwrap_err().to_string();
        assert!(text.contains("--rest-port"), "{text}");
    }

    #[test]
    fn what_serves_tests_only_is_not_in_the_help() {
        let mut command = ServeArgs::augment_args(Command::new("serve"));
        let help = command.render_long_help().to_string();
        assert!(help.contains("--election-timeout-min") && !help.contains("--fail-log-after"), "{help}");
    }
}
