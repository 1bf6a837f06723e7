//! Loading as an operator meets it: files on disk, variables, flags.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::*;
use crate::config::schema::Kind;

const SOUND: &str = r#"[node]
id = 1
data_dir = "data/node1"

[cluster]
name = "harbour"
initial_members = [
    { id = 1, peer_address = "127.0.0.1:7651", client_address = "127.0.0.1:7650" },
    { id = 2, peer_address = "127.0.0.1:7661", client_address = "127.0.0.1:7660" },
    { id = 3, peer_address = "127.0.0.1:7671", client_address = "127.0.0.1:7670" },
]
"#;

/// A configuration file in a directory of its own.
struct Setting {
    directory: tempfile::TempDir,
    environment: Vec<(OsString, OsString)>,
    flags: Vec<(&'static schema::Key, String)>,
}

impl Setting {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("node.toml"), text).expect("writes");
        Self {
            directory,
            environment: Vec::new(),
            flags: Vec::new(),
        }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, key: &'static schema::Key, value: &str) -> Self {
        self.flags.push((key, value.to_owned()));
        self
    }

    fn load(&self) -> Result<Loaded, Faults> {
        Config::load(&Sources {
            file: self.directory.path().join("node.toml"),
            environment: self.environment.clone(),
            flags: self.flags.clone(),
        })
    }

    fn config(&self) -> Config {
        self.load().expect("sound").config
    }

    /// Each fault on a line, with the file's directory left out.
    fn faults(&self) -> Vec<String> {
        let Faults(faults) = self.load().expect_err("faults");
        lines(&faults, self.directory.path())
    }

    fn warnings(&self) -> Vec<String> {
        lines(&self.load().expect("sound").warnings, self.directory.path())
    }
}

fn lines(faults: &[Fault], directory: &Path) -> Vec<String> {
    let prefix = format!("{}/", directory.display());
    faults
        .iter()
        .map(|fault| fault.to_string().replace(&prefix, ""))
        .collect()
}

/// [`SOUND`] with one text replaced.
fn with(from: &str, to: &str) -> Setting {
    assert!(SOUND.contains(from), "{from}");
    Setting::new(&SOUND.replacen(from, to, 1))
}

/// [`SOUND`] followed by more.
fn plus(more: &str) -> Setting {
    Setting::new(&format!("{SOUND}{more}"))
}

#[test]
fn what_is_not_set_has_its_default() {
    let setting = Setting::new(SOUND);
    let config = setting.config();
    assert_eq!(setting.warnings(), [""; 0]);
    assert_eq!(config.listen.client, "127.0.0.1:7650".parse().expect("one"));
    assert_eq!(config.listen.admin, "127.0.0.1:7652".parse().expect("one"));
    assert_eq!(config.raft.heartbeat, Duration::from_millis(30));
    assert_eq!(config.raft.election_min, Duration::from_millis(100));
    assert_eq!(config.raft.election_max, Duration::from_millis(200));
    assert_eq!(config.snapshot.every_bytes, 256 << 20);
    assert_eq!(config.snapshot.every, Duration::from_secs(600));
    assert_eq!(config.retention.max_age, None);
    assert_eq!(config.retention.max_bytes, None);
    assert_eq!(config.log.format, LogFormat::Auto);
    assert_eq!(
        config.this_member().expect("listed").peer_address.port(),
        7651
    );
}

#[test]
fn an_unknown_key_is_shown_with_what_is_meant() {
    assert_eq!(
        plus("\n[raft]\n  hartbeat_ms = 50\n").faults(),
        [
            "node.toml:14:3: error: there is no key raft.hartbeat_ms; did you mean raft.heartbeat_ms?"
        ]
    );
    assert_eq!(
        plus("[log]\ncolour = true\n").faults(),
        ["node.toml:13:1: error: there is no key log.colour; there are level, format"]
    );
    assert_eq!(
        plus("[log]\ndata_dir = \"x\"\n").faults(),
        ["node.toml:13:1: error: there is no key log.data_dir; did you mean node.data_dir?"]
    );
    assert_eq!(
        Setting::new(&format!("heartbeat_ms = 9\n{SOUND}")).faults(),
        ["node.toml:1:1: error: there is no key heartbeat_ms; did you mean raft.heartbeat_ms?"]
    );
}

#[test]
fn an_unknown_section_is_shown_with_what_is_meant() {
    assert_eq!(
        plus("[snapshots]\nevery_bytes = 1\n").faults(),
        ["node.toml:12:2: error: there is no section [snapshots]; did you mean [snapshot]?"]
    );
    assert_eq!(
        plus("[tls]\n").faults(),
        [
            "node.toml:12:2: error: there is no section [tls]; there are [node], [cluster], [listen], [raft], [snapshot], [retention], [log]"
        ]
    );
}

#[test]
fn a_wrong_type_is_shown_with_the_right_one() {
    assert_eq!(
        plus("[raft]\nheartbeat_ms = \"50\"\nelection_min_ms = 1.5\n").faults(),
        [
            "node.toml:13:16: error: raft.heartbeat_ms must be a whole number, not the string \"50\"",
            "node.toml:14:19: error: raft.election_min_ms must be a whole number, not a float",
        ]
    );
    assert_eq!(
        with("\"harbour\"", "7").faults(),
        ["node.toml:6:8: error: cluster.name must be a string in quotes, not an integer"]
    );
    assert_eq!(
        Setting::new("node = 1\n").faults()[0],
        "node.toml:1:1: error: node must be a section, not an integer"
    );
    let members = SOUND.find("initial_members").expect("there");
    assert_eq!(
        Setting::new(&format!("{}initial_members = 3\n", &SOUND[..members])).faults(),
        [
            "node.toml:7:19: error: cluster.initial_members must be an array of members, not an integer"
        ]
    );
}

#[test]
fn every_fault_is_shown_at_once_in_the_order_of_the_file() {
    let text = r#"
[node]
id = 0
data_dir = ""

[cluster]
name = "the harbour"
initial_members = [
    { id = 1, peer_address = "node1", client_adress = "127.0.0.1:7650" },
    { id = 1, peer_address = "0.0.0.0:7661", client_address = "node1:7650" },
    { id = 2, peer_address = "node2:7651", client_address = "node2:7651" },
]

[listen]
client = "localhost:7650"
admin = "127.0.0.1:7651"

[raft]
heartbeat_ms = 200
election_max_ms = 100

[log]
level = "verbose"
format = "jsn"
"#;
    assert_eq!(
        Setting::new(text).faults(),
        [
            "node.toml:3:6: error: node.id must be from 1 to 9223372036854775807, not 0",
            "node.toml:4:12: error: node.data_dir is empty; write the directory this node alone keeps its data in",
            "node.toml:7:8: error: cluster.name must be 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit, not \"the harbour\"",
            "node.toml:9:5: error: cluster.initial_members[0].client_address is not set; every member needs an id, a peer_address and a client_address",
            "node.toml:9:30: error: cluster.initial_members[0].peer_address must be host:port, where other machines reach the node, not \"node1\" (the port is missing)",
            "node.toml:9:39: error: there is no key cluster.initial_members[0].client_adress; did you mean cluster.initial_members[0].client_address?",
            "node.toml:10:12: error: cluster.initial_members[1].id is 1, as is cluster.initial_members[0].id; each member needs its own id",
            "node.toml:10:30: error: cluster.initial_members[1].peer_address must be host:port, where other machines reach the node, not \"0.0.0.0:7661\" (a wildcard is where a node listens, not where it is reached)",
            "node.toml:11:61: error: cluster.initial_members[2].client_address is node2:7651, as is cluster.initial_members[2].peer_address; each needs its own",
            "node.toml:15:10: error: listen.client must be an IP address and a port such as 127.0.0.1:7650, 0.0.0.0:7650 or [::1]:7650, not \"localhost:7650\"",
            "node.toml:16:9: error: listen.admin and listen.peer are both 127.0.0.1:7651; give each its own port",
            "node.toml:19:16: error: raft.election_min_ms (100) must be at least twice raft.heartbeat_ms (200), or one late heartbeat starts an election; use 400 or more",
            "node.toml:20:19: error: raft.election_min_ms (100) must be below raft.election_max_ms (100): the draw between them keeps candidates apart",
            "node.toml:23:9: error: log.level must be error, warn, info, debug, trace, or a filter such as info,openraft=debug, not \"verbose\" (\"verbose\" is no level)",
            "node.toml:24:10: error: log.format must be one of auto, human, json, not \"jsn\"",
        ]
    );
}

#[test]
fn what_must_be_set_is_missed_where_it_would_stand() {
    assert_eq!(
        Setting::new("[node]\n[cluster]\nname = \"harbour\"\n").faults(),
        [
            "node.toml:1:2: error: node.id is not set; write this node's number, never used for another node of the cluster",
            "node.toml:1:2: error: node.data_dir is not set; write the directory this node alone keeps its data in",
        ]
    );
    let faults = Setting::new("# nothing\n").faults();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(
        faults
            .iter()
            .all(|fault| fault.starts_with("node.toml:2:1: error: "))
    );
}

#[test]
fn what_is_no_toml_is_shown_as_such_and_nothing_else() {
    let faults = with("id = 1", "id = = 1\nid").faults();
    assert!(!faults.is_empty());
    for fault in &faults {
        assert!(fault.contains("error: not valid TOML: "), "{fault}");
    }
    assert!(faults[0].starts_with("node.toml:2:"), "{faults:?}");

    let faults = with("data_dir", "id = 2\ndata_dir").faults();
    assert_eq!(
        faults,
        ["node.toml:3:1: error: not valid TOML: duplicate key"]
    );
}

/// Nor does a terminal get to see what it would obey.
#[test]
fn what_is_no_text_is_shown_where_it_stands() {
    let setting = Setting::new("");
    let path = setting.directory.path().join("node.toml");
    fs::write(path, b"[node]\nid = \"\xff\"\n").expect("writes");
    assert_eq!(
        setting.faults(),
        ["node.toml:2:7: error: is not UTF-8; save it as UTF-8"]
    );
    let faults = with("name = \"harbour\"", "name = \"a\\u001b[2J\"").faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].ends_with("not \"a\\u{1b}[2J\""), "{faults:?}");
}

#[test]
fn numbers_past_any_integer_are_out_of_range() {
    for number in [
        "99999999999999999999999999999999999999999999",
        "-1",
        "0x1_0000_0000",
    ] {
        let faults = plus(&format!("[raft]\nheartbeat_ms = {number}\n")).faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(
            faults[0]
                .starts_with("node.toml:13:16: error: raft.heartbeat_ms must be from 5 to 60000"),
            "{faults:?}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let load = |file: PathBuf| {
        let (environment, flags) = (Vec::new(), Vec::new());
        let sources = Sources {
            file,
            environment,
            flags,
        };
        let Faults(faults) = Config::load(&sources).expect_err("not readable");
        faults
            .into_iter()
            .map(|fault| fault.problem)
            .collect::<Vec<_>>()
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("node.toml");
    assert!(matches!(load(path.clone())[..], [Problem::Unreadable(_)]));
    fs::write(&path, [b'#', 0xff]).expect("writes");
    assert_eq!(load(path.clone()), [Problem::NotUnicode]);
    fs::write(&path, vec![b'#'; crate::limits::CONFIG_FILE_BYTES_MAX + 1]).expect("writes");
    assert_eq!(load(path), [Problem::TooLarge]);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let text = "[raft]\nheartbeat_ms = 45\n";
    let heartbeat = |setting: Setting| setting.config().raft.heartbeat.as_millis();
    assert_eq!(heartbeat(plus("")), 30);
    assert_eq!(heartbeat(plus(text)), 45);
    let variable = "HUNTLOG_RAFT__HEARTBEAT_MS";
    assert_eq!(heartbeat(plus(text).variable(variable, "40")), 40);
    let flagged = plus(text)
        .variable(variable, "40")
        .flag(&schema::RAFT_HEARTBEAT_MS, "50");
    assert_eq!(heartbeat(flagged), 50);
}

#[test]
fn every_key_can_be_set_by_variable_and_by_flag() {
    let members = "[{id=4,peer_address='a:1',client_address='a:2'}]";
    let values = [
        "4",
        "/data",
        "quay",
        members,
        "127.0.0.1:1",
        "127.0.0.1:2",
        "127.0.0.1:3",
        "10",
        "20",
        "40",
        "7",
        "1048576",
        "5",
        "86400",
        "1073741824",
        "debug",
        "json",
    ];
    let mut by_variable = Setting::new("");
    let mut by_flag = Setting::new("");
    for (key, value) in schema::KEYS.into_iter().zip(values) {
        by_variable = by_variable.variable(key.variable, value);
        by_flag = by_flag.flag(key, value);
    }
    let config = by_variable.config();
    assert_eq!(config, by_flag.config());
    assert_eq!(config.node.id, 4);
    assert_eq!(config.node.data_dir, Path::new("/data"));
    assert_eq!(config.cluster.name, "quay");
    assert_eq!(
        config
            .this_member()
            .expect("listed")
            .client_address
            .to_string(),
        "a:2"
    );
    assert_eq!(config.listen.admin.port(), 3);
    assert_eq!(config.raft.election_max, Duration::from_millis(40));
    assert_eq!(config.raft.ignore_digests_through, 7);
    assert_eq!(config.snapshot.every, Duration::from_secs(5));
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!(config.retention.max_age, Some(day));
    assert_eq!(config.retention.max_bytes, Some(1 << 30));
    assert_eq!(config.log.level, "debug".parse().expect("a level"));
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn a_retention_of_less_than_two_segments_is_refused() {
    assert_eq!(
        plus("\n[retention]\nmax_bytes = 134217727\n")
            .faults()
            .len(),
        1
    );
    let least = plus("\n[retention]\nmax_bytes = 134217728\n").config();
    assert_eq!(least.retention.max_bytes, Some(128 << 20));
}

#[test]
fn faults_of_variables_and_flags_name_them() {
    let setting = Setting::new(SOUND)
        .variable("HUNTLOG_RAFT__HARTBEAT_MS", "1")
        .variable("HUNTLOG_LISTEN__CLIENT", "7650")
        .variable("HUNTLOG_ENDPOINTS", "another program's")
        .variable("PATH", "/bin")
        .flag(&schema::RAFT_HEARTBEAT_MS, "fast")
        .flag(&schema::CLUSTER_INITIAL_MEMBERS, "[{id=1]");
    let faults = setting.faults();
    assert_eq!(
        faults[..2],
        [
            "HUNTLOG_RAFT__HARTBEAT_MS: error: no key has this environment variable; did you mean HUNTLOG_RAFT__HEARTBEAT_MS?",
            "HUNTLOG_LISTEN__CLIENT: error: listen.client must be an IP address and a port such as 127.0.0.1:7650, 0.0.0.0:7650 or [::1]:7650, not \"7650\"",
        ]
    );
    // The rest of this line is the parser's.
    let syntax = "--cluster-initial-members: error: not valid TOML: ";
    assert!(faults[2].starts_with(syntax), "{faults:?}");
    assert_eq!(
        faults[3..],
        ["--raft-heartbeat-ms: error: raft.heartbeat_ms must be a whole number, not \"fast\""]
    );
}

#[test]
fn a_node_outside_its_own_cluster_is_refused() {
    assert_eq!(
        with("id = 1", "id = 4").faults(),
        [
            "node.toml:2:6: error: node.id is 4, but cluster.initial_members has 1, 2, 3; set node.id to one of them, add the node to a cluster that is still to be formed, or leave cluster.initial_members out for a node that `huntctl member add` adds"
        ]
    );
}

#[test]
fn the_number_of_voters_is_judged() {
    let members = |count: u16| {
        let list: String = (1..=count)
            .map(|id| {
                format!("{{id={id},peer_address=\"h{id}:7651\",client_address=\"h{id}:7650\"}},")
            })
            .collect();
        let text = format!(
            "[node]\nid = 1\ndata_dir = \"d\"\n[cluster]\nname = \"c\"\ninitial_members = [{list}]\n[listen]\nclient = \"0.0.0.0:7650\"\npeer = \"0.0.0.0:7651\"\n"
        );
        Setting::new(&text)
    };
    for count in [3, 5, 7] {
        assert_eq!(members(count).warnings(), [""; 0]);
    }
    for (count, part) in [
        (1, "a single node"),
        (2, "no more failures than 1"),
        (4, "than 3"),
    ] {
        let warnings = members(count).warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains("node.toml:6:19: warning: "),
            "{warnings:?}"
        );
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
    assert!(members(0).faults()[0].contains("is empty"));
    assert!(members(9).faults()[0].contains("at most 7"));
}

#[test]
fn an_address_nobody_can_reach_is_a_warning() {
    let far = SOUND.replace("127.0.0.1:765", "10.0.0.1:765");
    assert_eq!(
        Setting::new(&format!("{far}[listen]\nclient = \"0.0.0.0:9000\"\n")).warnings(),
        [
            "node.toml:12:2: warning: listen.peer is 127.0.0.1:7651, which only this machine reaches, but other machines are told 10.0.0.1:7651: listen on that address, or on 0.0.0.0",
            "node.toml:13:10: warning: listen.client is 0.0.0.0:9000, but other machines are told 10.0.0.1:7650: right only if something forwards that port",
        ]
    );
}

#[test]
fn ports_may_be_left_to_the_system_or_shared_between_addresses() {
    plus("[listen]\nclient = \"127.0.0.1:0\"\npeer = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n")
        .config();
    plus("[listen]\nadmin = \"127.0.0.2:7651\"\n").config();
    let faults = plus("[listen]\nadmin = \"0.0.0.0:7651\"\n").faults();
    assert!(
        faults[0].contains("listen.admin and listen.peer"),
        "{faults:?}"
    );
}

fn sample_files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster-configs");
    let mut files = Vec::new();
    for (cluster, nodes) in [("three-node", 3), ("five-node", 5)] {
        let found = fs::read_dir(root.join(cluster)).expect("samples");
        let mut found: Vec<_> = found.map(|entry| entry.expect("readable").path()).collect();
        found.sort_unstable();
        assert_eq!(found.len(), nodes, "{found:?}");
        files.extend(found);
    }
    files
}

fn load_file(file: &Path) -> Result<Loaded, Faults> {
    Config::load(&Sources {
        file: file.to_owned(),
        environment: Vec::new(),
        flags: Vec::new(),
    })
}

#[test]
fn the_samples_are_sound_and_agree() {
    let mut loaded = Vec::new();
    for file in sample_files() {
        let sample = load_file(&file).expect("sound");
        assert_eq!(sample.warnings, []);
        loaded.push((file, sample.config));
    }
    assert_eq!(disagreements(&loaded), []);
    for (_, config) in &loaded {
        let id = u16::try_from(config.node.id).expect("small");
        let base = 7640 + 10 * id;
        let ports = [
            config.listen.client,
            config.listen.peer,
            config.listen.admin,
        ]
        .map(|a| a.port());
        assert_eq!(ports, [base, base + 1, base + 2]);
        let this = config.this_member().expect("listed");
        assert_eq!(this.client_address.port(), base);
        assert_eq!(this.peer_address.port(), base + 1);
        assert_eq!(config.node.data_dir, Path::new(&format!("data/node{id}")));
    }
}

/// Every key of the schema stands in every sample, in its section, below a
/// comment that ends with the key's default, or with the word that it has none.
#[test]
fn the_samples_comment_every_key_with_its_default() {
    for file in sample_files() {
        let text = fs::read_to_string(&file).expect("readable");
        let mut section = String::new();
        let mut comment = Vec::new();
        let mut seen = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some(words) = line.strip_prefix("# ") {
                comment.push(words.to_owned());
            } else if let Some((name, _)) =
                line.split_once(" = ").filter(|(n, _)| !n.starts_with(' '))
            {
                let key = schema::key(&section, name).expect("a key of the schema");
                let last = match key.default {
                    Some(default) => format!("Default: {default}"),
                    None if key.kind == Kind::Members => {
                        "Default: none, the node waits to be given a cluster.".to_owned()
                    }
                    None => "Required.".to_owned(),
                };
                assert_eq!(
                    comment.last(),
                    Some(&last),
                    "{}: {}",
                    file.display(),
                    key.path
                );
                assert!(
                    comment.len() > 1,
                    "{}: {} is not explained",
                    file.display(),
                    key.path
                );
                if key.kind == Kind::Members {
                    for field in schema::MEMBER_FIELDS {
                        assert!(
                            comment.iter().any(|line| line.trim().starts_with(field)),
                            "{field}"
                        );
                    }
                }
                seen.push(key.path);
                comment.clear();
            } else {
                comment.clear();
            }
        }
        let keys = schema::KEYS.map(|key| key.path);
        assert_eq!(seen, keys, "{}", file.display());
    }
}

#[test]
fn files_of_one_cluster_are_compared() {
    let load = |text: &str, name: &str| {
        let config = Setting::new(text).config();
        (PathBuf::from(name), config)
    };
    let other_cluster = SOUND.replace("harbour", "quay");
    let more = SOUND
        .replace("id = 1\n", "id = 2\n")
        .replace("7671", "7681")
        + "[listen]\nclient = \"127.0.0.1:7660\"\npeer = \"127.0.0.1:7661\"\n[raft]\nheartbeat_ms = 45\n";
    let files = [
        load(SOUND, "a.toml"),
        load(&other_cluster, "b.toml"),
        load(&more, "c.toml"),
        load(SOUND, "d.toml"),
    ];
    let faults: Vec<_> = disagreements(&files)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        faults,
        [
            "c.toml: error: cluster.initial_members differs from a.toml, of the same cluster; all nodes must form it with the same list",
            "c.toml: warning: the timers of [raft] differ from a.toml, of the same cluster; use the same on all nodes",
            "d.toml: error: node.id is 1, as in a.toml; each node of a cluster needs its own id",
        ]
    );
}
