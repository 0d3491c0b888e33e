use serde_json::{Value, json};

use super::{Scope, Template};

fn data() -> Value {
    json!({
        "Name": "/web", "Count": 3, "Rate": 1.5, "On": true, "Empty": "", "None": null,
        "State": {"Status": "running", "Pid": 42},
        "Labels": {"a": "1", "com.example.x": "y"},
        "Args": ["sh", "-c", "exit 1"],
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null},
    })
}

fn render(source: &str) -> Result<String, String> {
    let method = |name: &str, arguments: &[Value]| {
        (name == "Label").then(|| data()["Labels"][arguments[0].as_str().unwrap_or("")].clone())
    };
    let scope = Scope { maps: &["Labels", "Ports"], method: Some(&method), header: false };
    let template = Template::parse(source).map_err(|error| error.to_string())?;
    template.execute(&data(), &scope).map_err(|error| error.to_string())
}

#[test]
fn actions_give_what_go_gives() {
    for (source, expected) in [
        ("plain", "plain"),
        ("{{.Name}}", "/web"),
        ("a{{.State.Status}}b", "arunningb"),
        ("{{ .State.Pid }}", "42"),
        ("{{.Rate}} {{.On}} {{.None}}", "1.5 true <no value>"),
        ("{{.Args}}", "[sh -c exit 1]"),
        ("{{.Labels}}", "map[a:1 com.example.x:y]"),
        ("{{.Labels.a}}{{.Labels.zzz}}", "1<no value>"),
        ("{{index .Labels \"com.example.x\"}}|{{index .Labels \"q\"}}|", "y||"),
        ("{{index .Args 0}}", "sh"),
        ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
        ("{{range .Args}}<{{.}}>{{end}}", "<sh><-c><exit 1>"),
        ("{{range $i, $a := .Args}}{{$i}}={{$a}};{{end}}", "0=sh;1=-c;2=exit 1;"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a=1 com.example.x=y "),
        (
            "{{range $p, $c := .Ports}}{{$p}}{{range $c}}->{{.HostPort}}{{end}} {{end}}",
            "80/tcp->8080 81/tcp ",
        ),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{range .Args}}{{if eq . \"-c\"}}{{continue}}{{end}}{{.}},{{end}}", "sh,exit 1,"),
        ("{{range .Args}}{{.}}{{break}}{{end}}", "sh"),
        ("{{if .On}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Empty}}a{{else if .None}}b{{else if eq .Count 3}}c{{else}}d{{end}}", "c"),
        ("{{with .State}}{{.Pid}}{{$.Name}}{{end}}", "42/web"),
        ("{{with .Empty}}a{{else}}b{{end}}", "b"),
        ("{{$x := .Count}}{{$x}}{{if true}}{{$x = 5}}{{end}}{{$x}}", "35"),
        ("{{/* nothing */}}a{{- /* trimmed */ -}} b", "ab"),
        ("a  {{- .Count -}}  b", "a3b"),
        ("{{.Name | printf \"%s-%d\" \"x\"}}", "x-%!d(string=/web)"),
        ("{{.Label \"a\"}}", "1"),
        ("{{`raw \"text\"`}} {{\"q\\t\\u00e9\"}}", "raw \"text\" q\té"),
        ("{{1}} {{-2}} {{0x10}} {{1.50}} {{'a'}}", "1 -2 16 1.5 97"),
        ("{{/*a*/}}{{\"}}\"}}", "}}"),
    ] {
        assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn functions_give_what_go_and_docker_give() {
    for (source, expected) in [
        ("{{json .Labels}}", r#"{"a":"1","com.example.x":"y"}"#),
        ("{{json .Name}}{{json .None}}", "\"/web\"null"),
        ("{{join .Args \",\"}}", "sh,-c,exit 1"),
        ("{{join (split \"a.b.c\" \".\") \"-\"}}", "a-b-c"),
        ("{{upper .Name}} {{lower \"ABC\"}} {{title \"hello big world\"}}", "/WEB abc Hello Big World"),
        ("[{{pad .Name 1 2}}][{{pad \"\" 1 2}}]", "[ /web  ][]"),
        ("{{truncate .Name 2}}{{truncate \"a\" 5}}", "/wa"),
        ("{{len .Args}} {{len .Name}} {{len .Labels}}", "3 4 2"),
        (
            "{{printf \"%-6s|%6s|%05d|%x|%q|%v|%t|%.2f|%%\" \"a\" \"b\" 42 255 \"c\" .Args true 1.5}}",
            "a     |     b|00042|ff|\"c\"|[sh -c exit 1]|true|1.50|%",
        ),
        ("{{printf \"%d %s\" \"x\"}}", "%!d(string=x) %!s(MISSING)"),
        ("{{printf \"%s\" 1 2}}", "%!s(int=1)%!(EXTRA int=2)"),
        ("{{print 1 2 \"a\" \"b\" 3}}", "1 2ab3"),
        ("{{println \"a\" 1}}", "a 1\n"),
        (
            "{{eq 1 2 1}} {{ne \"a\" \"b\"}} {{lt 1 2}} {{le 2 2}} {{gt \"b\" \"a\"}} {{ge 1 2}}",
            "true true true true true false",
        ),
        ("{{and .On .Name}} {{and .Empty .Name}}| {{or .Empty .Name}} {{not .On}}", "/web | /web false"),
        ("{{or .On (index .Args 9)}}", "true"),
        ("{{slice .Name 1}} {{slice .Args 1 2}} {{slice \"abcd\" 1 3}}", "web [-c] bc"),
        ("{{html \"<a&'\\\">\"}} {{urlquery \"a b/c\"}}", "&lt;a&amp;&#39;&#34;&gt; a+b%2Fc"),
        ("{{.Args | len | printf \"%03d\"}}", "003"),
        ("{{if and .On (eq .State.Status \"running\")}}up{{end}}", "up"),
    ] {
        assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn what_go_refuses_is_refused_in_gos_words() {
    for (source, expected) in [
        ("{{.Foo}}", "template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""),
        (
            "x\n {{.State.Foo}}",
            "template: :2:9: executing \"\" at <.State.Foo>: map has no entry for key \"Foo\"",
        ),
        (
            "{{.Name.Foo}}",
            "template: :1:7: executing \"\" at <.Name.Foo>: can't evaluate field Foo in type string",
        ),
        (
            "{{.None.Foo}}",
            "template: :1:7: executing \"\" at <.None.Foo>: nil data; no entry for key \"Foo\"",
        ),
        (
            "{{index .Args 9}}",
            "template: :1:2: executing \"\" at <index .Args 9>: error calling index: index out of range: 9",
        ),
        ("{{len 3}}", "template: :1:2: executing \"\" at <len 3>: error calling len: len of type int"),
        (
            "{{eq 1 \"a\"}}",
            "template: :1:2: executing \"\" at <eq 1 \"a\">: error calling eq: incompatible types for comparison",
        ),
        ("{{range .On}}{{end}}", "template: :1:8: executing \"\" at <.On>: range can't iterate over true"),
        ("{{.Foo", "template: :1: unclosed action"),
        ("{{foo}}", "template: :1: function \"foo\" not defined"),
        ("{{$x}}", "template: :1: undefined variable \"$x\""),
        ("{{}}", "template: :1: missing value for command"),
        ("{{if}}{{end}}", "template: :1: missing value for if"),
        ("{{if .On}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{else}}", "template: :1: unexpected {{else}}"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ("{{\"abc}}", "template: :1: unterminated quoted string"),
        ("{{(.Foo}}", "template: :1: unclosed left paren"),
        ("{{.Foo)}}", "template: :1: unexpected right paren"),
        ("{{.A}.B}}", "template: :1: unrecognized character in action: U+007D '}'"),
        ("{{/* a}}", "template: :1: unclosed comment"),
        ("{{.Name | }}", "template: :1: missing value for command"),
        ("{{1 | 2}}", "template: :1: non executable command in pipeline stage 2"),
        ("{{template \"x\"}}", "template: :1: {{template}} is not supported"),
        (
            "{{join .Args}}",
            "template: :1:2: executing \"\" at <join>: wrong number of args for join: want 2 got 1",
        ),
        ("{{1x}}", "template: :1: bad number syntax: \"1x\""),
    ] {
        assert_eq!(render(source), Err(expected.to_owned()), "{source}");
    }
}

#[test]
fn no_source_makes_it_panic() {
    let seeds = [
        "{{", "}}", "{{-", "-}}", "{{/*", "*/}}", "(", ")", "|", ".", "$", "\"", "`", "'", "a", " ", "\n",
        "é", ":=", "if", "range ", "end", "1", "\\",
    ];
    for a in seeds {
        for b in seeds {
            for c in seeds {
                for text in [
                    format!("{a}{b}{c}"),
                    format!("{{{{{a}{b}{c}}}}}"),
                    format!("{{{{range {a}{b}{c}}}}}{{{{end}}}}"),
                ] {
                    let _ = render(&text);
                }
            }
        }
    }
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(500), ")".repeat(500));
    assert!(render(&deep).is_err());
    assert!(render(&"{{if 1}}".repeat(500)).is_err());
}

#[test]
fn the_fields_a_template_reads_are_known() {
    let template = Template::parse("{{if .A}}{{range .B}}{{end}}{{end}}{{json (index .C 0)}}").unwrap();
    assert_eq!(["A", "B", "C", "D"].map(|name| template.uses(name)), [true, true, true, false]);
}
