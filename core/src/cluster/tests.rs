//! Nodes driven through rounds in virtual time, over links that lose, double and delay.

mod chaos;
mod fleet;
mod healing;
mod leaving;
mod line;
mod persistence;
mod puppet;
mod refusals;
mod rejoin;
mod rounds;
mod script;
mod streams;
