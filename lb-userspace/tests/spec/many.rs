//! Large files.

/// Services with their own listen ports, all on one address and one source.
pub fn services(count: usize, listens: usize, backends: usize) -> String {
    let mut text = "version = 1\n[[interface]]\nname = 'eth0'\n".to_owned();
    for service in 0..count {
        let ports = (0..listens).map(|it| 1000 + service * listens + it);
        let listen: Vec<String> = ports.map(|port| format!("'192.0.2.10:{port}'")).collect();
        let listen = listen.join(", ");
        text += &format!("[[service]]\nname = 's{service}'\nlisten = [{listen}]\nsource = ['10.0.0.1']\n");
        for it in 0..backends {
            let address = format!("10.{}.{}.{}:80", 1 + it / 62_500, it / 250 % 250, 1 + it % 250);
            text += &format!("[[service.backend]]\nname = 'b{it}'\naddress = '{address}'\n");
        }
    }
    text
}
