//! The page: for each benchmark its tables and plots, from nothing but its results.

use std::fmt::Write as _;

use serde_json::Value;

use super::svg::{Bars, Lines, escape, figure};

const STYLE: &str = include_str!("page.css");

/// What is said about a benchmark, and how its results are laid out.
struct Section {
    name: &'static str,
    title: &'static str,
    about: &'static str,
    layout: fn(&Value) -> String,
}

const SECTIONS: [Section; 10] = [
    Section {
        name: "transfers",
        title: "Transfers",
        about: "A committee of real processes under load, storage synced. CPU is of one authority, for one settled transfer, \
                beside one signature verified in a batch in the same run.",
        layout: transfers,
    },
    Section {
        name: "scale",
        title: "Scale",
        about: "One authority as one thing grows and the others stay: CPU for one settled transfer, beside one signature \
                verified in the same run.",
        layout: scale,
    },
    Section {
        name: "latency",
        title: "Latency of one payment",
        about: "One payment at a time, from handing it in to its being final, beside a sync of the same disk. The bar is two \
                syncs + 1.5 ms, or far away two round trips + 10 %.",
        layout: latency,
    },
    Section {
        name: "ordered",
        title: "Ordered path",
        about: "Orders that touch shared objects, from a certificate to being applied and durable, beside the bare ordering \
                engine with the same bytes in one process.",
        layout: ordered,
    },
    Section {
        name: "envelopes",
        title: "Envelopes",
        about: "One signed envelope decoded, checked and verified, by kind of key, beside the plain library call.",
        layout: |result| with_plain(&result["rows"], "keys", "ceiling_us"),
    },
    Section {
        name: "cash",
        title: "E-cash",
        about: "CPU of an authority for one note, without disk, beside the plain calls of the library; and latency of orders \
                that exchange notes.",
        layout: cash,
    },
    Section {
        name: "cash-crypto",
        title: "Cryptography of e-cash",
        about: "Each operation, for one note, beside the calls of the library that it can't do without.",
        layout: |result| with_plain(&result["rows"], "operation", "ceiling_us"),
    },
    Section {
        name: "channels",
        title: "Channels",
        about: "CPU of a voucher, journaled and synced, beside the plain signature operation; payments over a hub.",
        layout: channels,
    },
    Section {
        name: "storage",
        title: "Storage",
        about: "Groups of records, written and synced, beside plain appends of the same bytes to a file on the same disk.",
        layout: storage,
    },
    Section {
        name: "siege",
        title: "Under siege",
        about: "One honest payment at a time while a stranger attacks the authorities, and what they keep in memory, beside \
                no attack.",
        layout: siege,
    },
];

/// The whole page, with nothing to load from elsewhere.
pub fn page(results: &Value) -> String {
    let machine = &results["machine"];
    let on = ["cpu", "cores", "memory", "system"].map(|name| text(&machine[name]));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Florin: benchmarks</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Florin: benchmarks</h1>\n\
         <p>{}, {} cores, {}, Linux {}. Florin {}.</p>\n<nav>",
        on[0],
        on[1],
        on[2],
        on[3],
        text(&machine["florin"])
    );
    let benches = results["benches"].as_object().cloned().unwrap_or_default();
    let known = |name: &str| SECTIONS.iter().find(|section| section.name == name);
    let mut names: Vec<&String> = benches.keys().collect();
    names.sort_by_key(|name| SECTIONS.iter().position(|section| section.name == **name).unwrap_or(SECTIONS.len()));
    for name in &names {
        let title = known(name).map_or(name.as_str(), |section| section.title);
        let _ = write!(out, "<a href=\"#{}\">{}</a> ", escape(name), escape(title));
    }
    out += "</nav>\n";
    for name in names {
        let entry = &benches[name];
        let (title, about) = known(name).map_or((name.as_str(), ""), |section| (section.title, section.about));
        let _ = write!(out, "<section id=\"{}\">\n<h2>{}</h2>\n<p>{about}</p>\n", escape(name), escape(title));
        let _ = writeln!(out, "<p><code>{}</code>, {} s</p>", text(&entry["command"]), text(&entry["seconds"]));
        match entry["error"].as_str() {
            Some(error) => {
                let _ = writeln!(out, "<p class=\"error\">{}</p>", escape(error));
            }
            None => out += &known(name).map_or_else(|| scalars(&entry["result"]), |s| (s.layout)(&entry["result"])),
        }
        out += "</section>\n";
    }
    out + "</body>\n</html>\n"
}

/// A value as a cell has it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape(text),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), figure),
        other => escape(&other.to_string()),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A field, or a field of a field: `bare.p50_ms`.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, name| &value[name])
}

/// A table of an array's fields: (path, heading).
fn table(array: &Value, columns: &[(&str, &str)]) -> String {
    let mut out = String::from("<div class=\"wide\"><table>\n<tr>");
    // Words stand left, figures right, and headings over what they are of.
    let class = |value: &Value| if value.is_string() { " class=\"name\"" } else { "" };
    for (path, heading) in columns {
        let of = rows(array).next().map_or("", |first| class(at(first, path)));
        let _ = write!(out, "<th{of}>{}</th>", escape(heading));
    }
    out += "</tr>\n";
    for row in rows(array) {
        out += "<tr>";
        for (path, _) in columns {
            let value = at(row, path);
            let _ = write!(out, "<td{}>{}</td>", class(value), text(value));
        }
        out += "</tr>\n";
    }
    out + "</table></div>\n"
}

/// Names and values, for what has no table of its own.
fn scalars(value: &Value) -> String {
    let simple = |(_, v): &(&String, &Value)| !v.is_object() && !v.is_array() && !v.is_null();
    let cells = value.as_object().into_iter().flatten().filter(simple);
    let lines: String = cells
        .filter(|(name, _)| name.as_str() != "name")
        .map(|(name, v)| {
            format!("<tr><td class=\"name\">{}</td><td>{}</td></tr>\n", escape(&name.replace('_', " ")), text(v))
        })
        .collect();
    format!("<div class=\"wide\"><table>\n{lines}</table></div>\n")
}

fn plot(svg: &str, caption: &str) -> String {
    match svg.is_empty() {
        true => String::new(),
        false => format!("<figure>{svg}<figcaption>{}</figcaption></figure>\n", escape(caption)),
    }
}

/// Names and values of an object of numbers, as they were written.
fn parts(value: &Value) -> Vec<(String, f64)> {
    value.as_object().into_iter().flatten().map(|(name, v)| (name.clone(), number(v))).collect()
}

fn transfers(result: &Value) -> String {
    let split = parts(&result["split_us"]);
    let mut names: Vec<String> = split.iter().map(|(name, _)| name.clone()).collect();
    let mut spent: Vec<f64> = split.iter().map(|(_, us)| *us).collect();
    // The plain operation is a bar of its own, in a colour of its own.
    names.push("plain verification".into());
    let mut plain = vec![0.0; spent.len()];
    spent.push(0.0);
    plain.push(number(&result["ceiling_us"]));
    let bars = vec![("a transfer".to_owned(), spent), ("a signature".to_owned(), plain)];
    let bars = Bars { unit: "us".into(), parts: names, bars };
    scalars(result)
        + &plot(&bars.svg(), "CPU of an authority for a settled transfer, beside a signature verified in a batch")
}

fn scale(result: &Value) -> String {
    let mut out = format!("<p>{}.</p>\n", text(&result["left_out"]));
    for dimension in rows(&result["dimensions"]) {
        let axis = dimension["axis"].as_str().unwrap_or_default();
        let _ = write!(out, "<h3>{}</h3>\n<p>{}.</p>\n", escape(axis), text(&dimension["words"]));
        let series = |name: &str, of: &dyn Fn(&Value) -> f64| {
            (name.to_owned(), rows(&dimension["points"]).map(|p| (number(&p["at"]), of(p))).collect::<Vec<_>>())
        };
        let split = |kind: &'static str| move |p: &Value| number(&p["split_us"][kind]);
        let stored =
            |p: &Value| ["storage", "flushing", "merging"].map(|kind| number(&p["split_us"][kind])).iter().sum();
        let lines = Lines {
            x_label: axis.to_owned(),
            y_label: "us of CPU a transfer".into(),
            is_logarithmic: dimension["logarithmic"] == true,
            // Batches of one cost so much more that nothing else could be seen.
            is_logarithmic_y: dimension["dimension"] == "batch",
            series: vec![
                series("all", &|p| number(&p["cpu_us"])),
                series("signatures", &split("signatures")),
                series("state", &split("state")),
                series("storage, merging", &stored),
                series("plain verification", &|p| number(&p["plain_us"])),
            ],
        };
        out += &plot(&lines.svg(), &format!("cost by {axis}"));
        let columns = [
            ("at", axis),
            ("cpu_us", "CPU us"),
            ("plain_us", "plain us"),
            ("ratio", "by base"),
            ("split_us.decode", "decode"),
            ("split_us.signatures", "signatures"),
            ("split_us.votes", "votes"),
            ("split_us.state", "state"),
            ("split_us.storage", "storage"),
            ("split_us.queues", "queues"),
            ("split_us.flushing", "flushing"),
            ("split_us.merging", "merging"),
            ("tree_reads", "tree reads"),
            ("syncs", "syncs"),
            ("written_bytes", "bytes written"),
            ("disk_bytes", "on disk"),
            ("resident_bytes", "resident"),
        ];
        out += &table(&dimension["points"], &columns);
    }
    if rows(&result["committees"]).next().is_some() {
        out += "<h3>committees of real processes</h3>\n";
        let columns = [
            ("authorities", "authorities"),
            ("cpu_us", "CPU us"),
            ("ceiling_us", "plain us"),
            ("ratio", "by plain"),
            ("split_us.network", "network us"),
            ("rate", "transfers/s, all on this machine"),
        ];
        out += &table(&result["committees"], &columns);
    }
    out
}

fn latency(result: &Value) -> String {
    let array = &result["committees"];
    let columns = [
        ("authorities", "authorities"),
        ("delay_ms", "one way, ms"),
        ("p50_ms", "p50 ms"),
        ("p90_ms", "p90"),
        ("p99_ms", "p99"),
        ("sync_p50_ms", "sync p50"),
        ("sync_p99_ms", "sync p99"),
        ("quorum_sync_p50_ms", "quorum's syncs p50"),
        ("bar_ms", "bar"),
        ("ratio", "p50 by bar"),
        ("p99_by_p50", "p99 by p50"),
    ];
    let bar = |row: &Value| {
        let [p50, p90, p99] = ["p50_ms", "p90_ms", "p99_ms"].map(|name| number(&row[name]));
        (format!("n = {}, {} ms away", row["authorities"], row["delay_ms"]), vec![p50, p90 - p50, p99 - p90])
    };
    let names = ["p50", "to p90", "to p99"].map(str::to_owned).to_vec();
    let bars = Bars { unit: "ms".into(), parts: names, bars: rows(array).map(bar).collect() };
    table(array, &columns) + &plot(&bars.svg(), "one payment, idle; the figure is its p99")
}

fn ordered(result: &Value) -> String {
    let array = &result["committees"];
    let columns = [
        ("authorities", "authorities"),
        ("rate", "ordered/s"),
        ("p50_ms", "p50 ms"),
        ("p99_ms", "p99"),
        ("bare.rate", "bare/s"),
        ("bare.p50_ms", "bare p50"),
        ("bare.p99_ms", "bare p99"),
        ("ratio_p50", "p50 by bare"),
        ("ratio_p99", "p99 by bare"),
        ("payments_idle.p50_ms", "payment, idle, p50"),
        ("payments_loaded.p50_ms", "payment, loaded, p50"),
    ];
    let series = |name: &str, path: &str| {
        (name.to_owned(), rows(array).map(|r| (number(&r["authorities"]), number(at(r, path)))).collect())
    };
    let lines = Lines {
        x_label: "authorities".into(),
        y_label: "ms".into(),
        is_logarithmic: false,
        is_logarithmic_y: false,
        series: vec![
            series("p50", "p50_ms"),
            series("p99", "p99_ms"),
            series("bare p50", "bare.p50_ms"),
            series("bare p99", "bare.p99_ms"),
        ],
    };
    table(array, &columns) + &plot(&lines.svg(), "latency of an order through the log")
}

/// A table of operations with the plain call of each, and bars of both.
fn with_plain(array: &Value, name: &str, plain: &str) -> String {
    let columns = [(name, ""), ("cpu_us", "us"), (plain, "plain us"), ("ratio", "ratio"), ("plain", "plain call")];
    let has_call = rows(array).any(|row| row["plain"].is_string());
    let bar = |row: &Value| {
        let (cpu, plain) = (number(&row["cpu_us"]), number(&row[plain]));
        (row[name].as_str().unwrap_or_default().to_owned(), vec![plain.min(cpu), (cpu - plain).max(0.0)])
    };
    let names = ["plain call", "beside it"].map(str::to_owned).to_vec();
    let bars = Bars { unit: "us".into(), parts: names, bars: rows(array).map(bar).collect() };
    table(array, &columns[..if has_call { 5 } else { 4 }]) + &plot(&bars.svg(), "CPU")
}

fn cash(result: &Value) -> String {
    let array = &result["authority"];
    let names: Vec<String> = parts(&array[0]["split_us"]).into_iter().map(|(name, _)| name).collect();
    let bar = |row: &Value| {
        let spent = names.iter().map(|name| number(&row["split_us"][name])).collect();
        (row["kind"].as_str().unwrap_or_default().to_owned(), spent)
    };
    let bars = Bars { unit: "us".into(), parts: names.clone(), bars: rows(array).map(bar).collect() };
    let columns = [
        ("kind", ""),
        ("cpu_us", "us a note"),
        ("ceiling_us", "plain us"),
        ("ratio", "ratio"),
        ("notes_per_s_core", "notes/s a core"),
    ];
    let mut out = table(array, &columns) + &plot(&bars.svg(), "CPU of an authority for a note");
    if result["recovery"].is_object() {
        let _ = write!(out, "<h3>recovery of a wallet from its words</h3>\n{}", scalars(&result["recovery"]));
    }
    if rows(&result["committee"]["reissue"]).next().is_some() {
        let columns = [
            ("notes", "notes reissued"),
            ("latency.p50_ms", "p50 ms"),
            ("latency.p99_ms", "p99"),
            ("wallet_ms", "of it in the wallet"),
            ("bar_ms", "bar"),
            ("ratio", "p50 by bar"),
        ];
        let payment = &result["committee"]["payment"];
        let [p50, p99] = ["p50_ms", "p99_ms"].map(|name| text(&payment[name]));
        let _ = write!(
            out,
            "<h3>latency of orders that exchange notes</h3>\n<p>A plain payment: p50 {p50} ms, p99 {p99} ms.</p>\n"
        );
        out += &table(&result["committee"]["reissue"], &columns);
    }
    out
}

fn channels(result: &Value) -> String {
    let mut out = with_plain(&result["operations"], "name", "plain_us") + &scalars(result);
    if result["download"].is_object() {
        let _ = write!(out, "<h3>paid download</h3>\n{}", scalars(&result["download"]));
    }
    out
}

fn storage(result: &Value) -> String {
    let array = &result["groups"];
    let columns = [
        ("records", "records"),
        ("p50_ms", "p50 ms"),
        ("p99_ms", "p99"),
        ("plain_p50_ms", "plain p50"),
        ("plain_p99_ms", "plain p99"),
        ("ratio", "p50 by plain"),
        ("rate", "records/s"),
    ];
    let series = |name: &str, field: &str| {
        (name.to_owned(), rows(array).map(|r| (number(&r["records"]), number(&r[field]))).collect())
    };
    let lines = Lines {
        x_label: "records in a group".into(),
        y_label: "ms".into(),
        is_logarithmic: true,
        is_logarithmic_y: false,
        series: vec![
            series("p50", "p50_ms"),
            series("p99", "p99_ms"),
            series("plain p50", "plain_p50_ms"),
            series("plain p99", "plain_p99_ms"),
        ],
    };
    let large = format!("<h3>a large table</h3>\n{}", scalars(&result["table"]));
    table(array, &columns) + &plot(&lines.svg(), "a durable group") + &large
}

fn siege(result: &Value) -> String {
    let columns = [
        ("attack", "attack"),
        ("p50_ms", "p50 ms"),
        ("p99_ms", "p99"),
        ("p50_by_idle", "p50 by none"),
        ("p99_by_idle", "p99 by none"),
        ("memory_before", "memory before, bytes"),
        ("memory_peak", "at most"),
        ("what", "what it does"),
    ];
    table(&result["rows"], &columns)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_section_takes_results_that_lack_everything() {
        for section in &SECTIONS {
            let benches = json!({section.name: {"command": "florin bench", "seconds": 1, "result": {}}});
            let page = page(&json!({"machine": {}, "benches": benches}));
            assert!(page.contains(section.title) && page.ends_with("</html>\n"), "{}", section.name);
        }
    }

    #[test]
    fn a_page_has_the_points_of_its_results_and_loads_nothing() {
        let point = |at: f64, us: f64| {
            json!({"at": at, "cpu_us": us, "plain_us": 8.0, "ratio": us / 10.0,
            "split_us": {"signatures": 7.0, "state": us - 7.0}})
        };
        let dimension = json!({"dimension": "accounts", "axis": "accounts", "logarithmic": true, "words": "flat",
            "points": [point(1e4, 10.0), point(1e7, 12.5)]});
        let scale = json!({"command": "florin bench scale", "seconds": 9, "result": {"dimensions": [dimension]}});
        let broken = json!({"command": "florin bench storage", "seconds": 1, "error": "disk <full>"});
        let page = page(&json!({"machine": {"cores": 2}, "benches": {"storage": broken, "scale": scale}}));
        assert!(page.contains("12.5") && page.contains("<svg") && page.contains("disk &lt;full&gt;"), "{page}");
        assert!(!page.contains("http") && !page.contains("<script"), "nothing is loaded from elsewhere");
        assert!(page.find("id=\"scale\"") < page.find("id=\"storage\""), "in the order of the report");
    }
}
