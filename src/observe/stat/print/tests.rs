use super::*;

fn table() -> Table {
    let row = |cells: [Value; 3]| cells.to_vec();
    Table {
        heads: ["CPU", "Busy%", "IRQ"].map(str::to_owned).to_vec(),
        rows: vec![
            (
                "system",
                row([Value::Unknown, Value::Real(12.345, 2), Value::Count(1234)]),
            ),
            (
                "cpu",
                row([Value::Count(0), Value::Unknown, Value::Count(5)]),
            ),
        ],
        seconds: 1.5,
        time_of_day: 100.25,
    }
}

fn printed(format: Format, times: usize) -> String {
    let mut bytes = Vec::new();
    let mut printer = Printer::new(&mut bytes, format);
    for _ in 0..times {
        printer.print(&table()).unwrap();
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn text_is_aligned_under_its_heads_and_unknown_is_a_dash() {
    let expected = "CPU Busy%  IRQ\n  - 12.35 1234\n  0     -    5\n";
    assert_eq!(printed(Format::Text, 1), expected);
    assert_eq!(printed(Format::Text, 2), expected.repeat(2));
}

#[test]
fn csv_has_its_heads_once_and_the_time_in_every_line() {
    let lines = printed(Format::Csv, 2);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0], "Time_Of_Day_Seconds,Seconds,Row,CPU,Busy%,IRQ");
    assert_eq!(lines[1], "100.250000,1.500000,system,-,12.35,1234");
    assert_eq!(lines[1..3], lines[3..5]);
}

#[test]
fn json_is_an_object_for_each_interval_in_which_unknown_is_null() {
    let text = printed(Format::Json, 2);
    assert_eq!(text.lines().count(), 2);
    let object: Json = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(object["Seconds"], 1.5);
    let row = &object["rows"][0];
    assert_eq!(row["Row"], "system");
    assert_eq!((&row["IRQ"], &row["CPU"]), (&json!(1234), &Json::Null));
}
