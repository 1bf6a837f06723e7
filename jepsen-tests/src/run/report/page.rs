//! summary.html: what a run comes to, for people.

use std::fmt::Write as _;

use super::{Outcome, Summary};

/// Violations and findings that are shown; the first ones tell.
const SHOWN: usize = 50;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1220px;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse}td,th{padding:.15em .8em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}.valid{color:#226e3c}.bad{color:#be1e2d}svg{max-width:100%;height:auto}";

pub(super) fn html(summary: &Summary, svg: &str) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, summary, svg);
    page
}

fn write(page: &mut String, summary: &Summary, svg: &str) -> std::fmt::Result {
    let workload = name(&summary.workload);
    let nemesis = name(&summary.nemesis);
    let (class, outcome) = match summary.outcome {
        Outcome::Valid => ("valid", "valid"),
        Outcome::Invalid => ("bad", "INVALID"),
        Outcome::NoVerdict => ("bad", "no verdict"),
        Outcome::HarnessFailed => ("bad", "the harness failed"),
    };
    write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{workload} under {nemesis}</title>\
         <style>{STYLE}</style><h1>{workload} under {nemesis}: <span class=\"{class}\">{outcome}</span></h1>\
         <p>{} nodes {}, {} operations a second offered for {} s, seed {}. Repeat with<br>\
         <code>huntlog-jepsen run --workload {workload} --nemesis {nemesis} --nodes {} --rate {} --time {} --seed {}{} --out DIR</code></p>",
        summary.nodes,
        if summary.namespaces {
            "in network namespaces"
        } else {
            "on the loopback interface"
        },
        summary.rate,
        summary.time_s,
        summary.seed,
        summary.nodes,
        summary.rate,
        summary.time_s,
        summary.seed,
        if summary.namespaces {
            ""
        } else {
            " --loopback"
        },
    )?;
    page.push_str(svg);
    wrong(page, summary)?;
    operations(page, summary)?;
    faults(page, summary)?;
    page.push_str("</html>\n");
    Ok(())
}

fn wrong(page: &mut String, summary: &Summary) -> std::fmt::Result {
    let violations = summary.judgement.violations.iter().map(ToString::to_string);
    let findings = summary.findings.iter().map(ToString::to_string);
    let reasons = &summary.judgement.insufficient;
    let reasons = reasons.iter().map(|reason| format!("not enough: {reason}"));
    let all: Vec<String> = violations.chain(findings).chain(reasons).collect();
    if all.is_empty() {
        return Ok(());
    }
    page.push_str("<h2>What is wrong</h2><ul>");
    for what in all.iter().take(SHOWN) {
        write!(page, "<li><pre>{}</pre>", escaped(what))?;
    }
    if all.len() > SHOWN {
        write!(page, "<li>and {} more, in summary.json", all.len() - SHOWN)?;
    }
    page.push_str("</ul>");
    Ok(())
}

fn operations(page: &mut String, summary: &Summary) -> std::fmt::Result {
    let latency = summary.latency;
    write!(
        page,
        "<h2>Operations</h2><p>Acknowledged writes took {:.1} ms (median), {:.1} ms (p99), {:.0} ms at most. \
         A verdict needs {} ok operations and {} faults.</p>\
         <table><tr><th>operation<th>ok<th>needed<th>failed<th>unknown",
        latency.p50_ms,
        latency.p99_ms,
        latency.max_ms,
        summary.minimum.ok_ops,
        summary.minimum.faults
    )?;
    for (f, outcomes) in &summary.judgement.counts.ops {
        write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}",
            escaped(f),
            outcomes.ok,
            summary
                .minimum_of_kinds
                .get(f.as_str())
                .copied()
                .unwrap_or_default(),
            outcomes.fail,
            outcomes.info
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

fn faults(page: &mut String, summary: &Summary) -> std::fmt::Result {
    page.push_str("<h2>Faults</h2>");
    for (what, spread) in [("began", summary.recovery), ("was healed", summary.healing)] {
        if let Some(spread) = spread {
            write!(
                page,
                "<p>After a fault {what}, a write was acknowledged within {} ms (median), {} ms at most; after {} never.</p>",
                spread.median_ms, spread.max_ms, spread.never
            )?;
        }
    }
    page.push_str(
        "<table><tr><th>fault<th>nodes<th>from, s<th>to, s<th>longest without an acknowledged write, ms\
         <th>first write that began in it acknowledged after, ms<th>first write acknowledged after its end, ms",
    );
    for window in &summary.windows {
        write!(
            page,
            "<tr><td>{}<td>{:?}<td>{:.1}<td>{:.1}<td>{}<td>{}<td>{}",
            escaped(&window.fault),
            window.nodes,
            window.start_s,
            window.stop_s,
            window.silence_ms,
            time(window.recovery_ms),
            time(window.healing_ms)
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

fn time(ms: Option<u64>) -> String {
    ms.map_or_else(|| "never".to_owned(), |ms| ms.to_string())
}

/// As it is called on the command line.
fn name(value: &impl clap::ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
