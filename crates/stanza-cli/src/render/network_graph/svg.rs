//! The graph as a picture: one file, without anything from elsewhere, dark where the viewer is.
//!
//! ```text
//!   ┌──────────────────────── host ────────────────────────┐
//!        │ 8080->80/tcp                                        published ports, from the host down
//!   ┌────▼────┐   ┌─────────┐   ┌─────────┐
//!   │ web     │   │ db      │   │ side    │                  containers, each a column
//!   └─┬─────┬─┘   └────┬────┘   └─────────┘
//!   ──●─────┼──────────●──────────────────────  back         networks, each a line
//!   ────────●─────────────────────────────────  front
//! ```

use std::fmt::Write as _;

use stanza_engine::{GraphContainer, NetworkGraph};
use stanza_spec::NetworkMode;

use crate::render::markup::escape;

use super::{addresses, kind, places, published, real, subnets, traits};

/// Everything is in pixels.
const MARGIN: usize = 24;
const COLUMN: usize = 210;
const BOX: usize = 186;
const LINE: usize = 17;
const BUS: usize = 46;
/// More ports than these are counted.
const PORTS: usize = 6;
/// Room right of the lines for the names of the networks.
const NAMES: usize = 380;

const COLOURS: [&str; 8] =
    ["#2a78d6", "#c2571a", "#1f8a4c", "#8b4fc7", "#b8860b", "#c23a6b", "#16858f", "#6b7280"];

const STYLE: &str = "\
text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1f2937}\
.t{font-weight:600;font-size:14px}.s{font-size:11.5px;fill:#6b7280}.p{font-size:11.5px;font-family:ui-monospace,monospace}\
.b{fill:#fff;stroke:#9ca3af;stroke-width:1.2}.off{stroke-dasharray:5 4;opacity:.6}\
.h{fill:#e5e7eb;stroke:#9ca3af}.a{stroke:#4b5563;stroke-width:1.4;fill:none}.bg{fill:#f9fafb}\
@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.s{fill:#9ca3af}.b{fill:#1f2937;stroke:#6b7280}\
.h{fill:#374151;stroke:#6b7280}.a{stroke:#9ca3af}.bg{fill:#111827}}";

fn say(out: &mut String, class: &str, x: usize, y: usize, text: &str) {
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escape(text));
}

/// `text` in at most so many characters.
fn cut(text: &str, width: usize) -> String {
    super::super::container::ellipsis(text, width)
}

/// The containers with those that share a network beside its owner.
fn columns(graph: &NetworkGraph) -> Vec<&GraphContainer> {
    let mut list = Vec::new();
    for owner in graph.containers.iter().filter(|container| container.shares_with.is_none()) {
        list.push(owner);
        list.extend(graph.containers.iter().filter(|other| other.shares_with.as_ref() == Some(&owner.id)));
    }
    let lost: Vec<_> = graph.containers.iter().filter(|one| !list.contains(one)).collect();
    list.extend(lost);
    list
}

/// The lines in a container's box under its name, each with the colour of its network.
fn body(graph: &NetworkGraph, container: &GraphContainer) -> Vec<(String, Option<&'static str>)> {
    let mut lines: Vec<(String, Option<&'static str>)> =
        kind(graph, container).into_iter().map(|kind| (kind, None)).collect();
    for (network, endpoint) in places(graph, container) {
        let colour = COLOURS[network % COLOURS.len()];
        let all = addresses(endpoint);
        let mut all = all.split(", ");
        let first = all.next().unwrap_or_default();
        lines.push((format!("{} {first}", endpoint.interface), Some(colour)));
        lines.extend(all.map(|address| (address.to_owned(), Some(colour))));
    }
    if !container.running {
        lines.push(("not running".to_owned(), None));
    }
    lines
}

/// The ports that are shown over a container.
fn labels(container: &GraphContainer) -> Vec<String> {
    let mut ports = published(container);
    if ports.len() > PORTS {
        let more = ports.len() - (PORTS - 1);
        ports.truncate(PORTS - 1);
        ports.push(format!("and {more} more"));
    }
    ports
}

/// The picture.
pub(crate) fn svg(graph: &NetworkGraph) -> String {
    let containers = columns(graph);
    let bodies: Vec<_> = containers.iter().map(|container| body(graph, container)).collect();
    let ports: Vec<_> = containers.iter().map(|container| labels(container)).collect();
    let most = |counts: &mut dyn Iterator<Item = usize>| counts.max().unwrap_or(0);
    let ports_height = most(&mut ports.iter().map(Vec::len)) * LINE + 30;
    let box_height = most(&mut bodies.iter().map(Vec::len)).max(1) * LINE + 34;
    let (host_top, host_height) = (MARGIN, 34);
    let box_top = host_top + host_height + ports_height;
    let bus_top = box_top + box_height + 40;
    let networks: Vec<_> = real(graph).collect();
    let bus_width = containers.len().max(1) * COLUMN;
    let width = MARGIN * 2 + bus_width + NAMES;
    let height = bus_top + networks.len() * BUS + MARGIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>Networks of {}</title>\n<style>{STYLE}</style>\n<rect class=\"bg\" width=\"100%\" height=\"100%\"/>\n",
        escape(&graph.host)
    );
    let _ = writeln!(
        out,
        "<rect class=\"h\" x=\"{MARGIN}\" y=\"{host_top}\" width=\"{bus_width}\" height=\"{host_height}\" rx=\"6\"/>"
    );
    say(&mut out, "t", MARGIN + 12, host_top + 22, &graph.host);
    for (index, entry) in networks.iter().enumerate() {
        let y = bus_top + index * BUS;
        let _ = writeln!(
            out,
            "<line x1=\"{MARGIN}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{}\" stroke-width=\"5\" stroke-linecap=\"round\"/>",
            MARGIN + bus_width,
            COLOURS[index % COLOURS.len()]
        );
        let x = MARGIN + bus_width + 14;
        say(&mut out, "t", x, y + 1, &cut(&entry.network.name, 34));
        let about = [vec![subnets(entry)], traits(entry)].concat().join(" · ");
        say(&mut out, "s", x, y + 17, &cut(about.trim_start_matches(" · "), 64));
    }
    for (index, container) in containers.iter().enumerate() {
        let x = MARGIN + index * COLUMN + (COLUMN - BOX) / 2;
        let arrow = !ports[index].is_empty() || container.mode == NetworkMode::Host;
        if arrow {
            let (from, to, x) = (host_top + host_height, box_top, x + 14);
            let _ = writeln!(out, "<path class=\"a\" d=\"M{x} {from}V{to}m-4 -7l4 7l4 -7\"/>");
        }
        for (line, text) in ports[index].iter().enumerate() {
            say(&mut out, "p", x + 24, host_top + host_height + 22 + line * LINE, &cut(text, 26));
        }
        let places = places(graph, container);
        for (nth, (network, _)) in places.iter().enumerate() {
            let x = x + BOX * (nth + 1) / (places.len() + 1);
            let (y, colour) = (bus_top + network * BUS, COLOURS[network % COLOURS.len()]);
            let dash = if container.running { "" } else { " stroke-dasharray=\"5 4\"" };
            let _ = writeln!(
                out,
                "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/><circle cx=\"{x}\" cy=\"{y}\" r=\"5.5\" fill=\"{colour}\"/>",
                box_top + box_height
            );
        }
        if container.shares_with.is_some() && index > 0 {
            // From the box before it, which is its owner's or another guest's.
            let (from, y) = (x - (COLUMN - BOX), box_top + 17);
            let _ = writeln!(out, "<path class=\"a\" stroke-dasharray=\"2 3\" d=\"M{from} {y}H{x}\"/>");
        }
        let off = if container.running { "" } else { " off" };
        let _ = writeln!(
            out,
            "<rect class=\"b{off}\" x=\"{x}\" y=\"{box_top}\" width=\"{BOX}\" height=\"{box_height}\" rx=\"8\"><title>{}</title></rect>",
            escape(container.id.as_str())
        );
        say(&mut out, "t", x + 12, box_top + 22, &cut(&container.name, 22));
        for (line, (text, colour)) in bodies[index].iter().enumerate() {
            let y = box_top + 22 + (line + 1) * LINE;
            if let Some(colour) = colour {
                let _ =
                    writeln!(out, "<circle cx=\"{}\" cy=\"{}\" r=\"3.5\" fill=\"{colour}\"/>", x + 15, y - 4);
            }
            say(&mut out, "s", x + if colour.is_some() { 24 } else { 12 }, y, &cut(text, 28));
        }
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::svg;

    #[test]
    fn the_picture_stands_alone_and_shows_everything_once() {
        let mut graph = sample();
        graph.host = "a<b>&\"c\"".to_owned();
        let text = svg(&graph);
        assert!(text.starts_with("<svg xmlns=") && text.ends_with("</svg>\n"));
        for part in [
            ">web<",
            ">db<",
            ">side<",
            ">front<",
            ">back<",
            "127.0.0.1:8080-&gt;80/tcp",
            "the network of web",
        ] {
            assert_eq!(text.matches(part).count(), 1, "{part}");
        }
        assert!(text.contains("Networks of a&lt;b&gt;&amp;&quot;c&quot;"));
        assert!(!text.contains("href") && !text.contains("url("));
        // Three places in networks, each a line with its dot.
        assert_eq!(text.matches("r=\"5.5\"").count(), 3);
    }

    #[test]
    fn nothing_is_a_picture_too() {
        let graph = stanza_engine::NetworkGraph { containers: Vec::new(), networks: Vec::new(), ..sample() };
        assert!(svg(&graph).contains("tower"));
    }
}
