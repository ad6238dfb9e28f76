//! Compares the losses that a microcontroller has printed, read from standard input, with the same training here.

mod comparison;

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let text = match io::read_to_string(io::stdin()) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("the losses cannot be read from standard input: {error}");
            return ExitCode::FAILURE;
        }
    };
    match comparison::compare(&text) {
        Ok(agreements) => {
            agreements.iter().for_each(|agreement| println!("{agreement}"));
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}
